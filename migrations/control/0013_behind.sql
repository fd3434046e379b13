-- The login trigger reads who lags for each row that the application writes, with the application's rights: a function
-- with rights of its own would cost more than the read. There are ids in it, nothing else. Who is not known yet is left
-- to the insert trigger and the sweep.
GRANT SELECT ON tenantd.behind TO PUBLIC;
