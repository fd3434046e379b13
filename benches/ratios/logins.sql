-- Tables like public.logins with other triggers; the notifying one uses a channel of its own.
CREATE TABLE public.logins_none (LIKE public.logins INCLUDING ALL);
CREATE TABLE public.logins_notify (LIKE public.logins INCLUDING ALL);
CREATE TABLE public.logins_empty (LIKE public.logins INCLUDING ALL);
CREATE FUNCTION public.logins_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('bench_login', NEW.tenant_id::text);
    RETURN NULL;
END $$;
CREATE FUNCTION public.logins_empty() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$;
CREATE TRIGGER notify AFTER INSERT ON public.logins_notify FOR EACH ROW EXECUTE FUNCTION public.logins_notify();
CREATE TRIGGER empty AFTER INSERT ON public.logins_empty FOR EACH ROW EXECUTE FUNCTION public.logins_empty();
