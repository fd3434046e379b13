"""django-tenants, driven over standard input: `new SCHEMA` and `migrate`; each answer is a time in milliseconds."""

import importlib
import sys
import time

import django
from django.core.management import call_command

django.setup()
from customers.models import Customer  # noqa: E402

call_command("makemigrations", "customers", interactive=False, verbosity=0)
call_command("migrate_schemas", shared=True, interactive=False, verbosity=0)
print("ready", flush=True)
for line in sys.stdin:
    what, *schema = line.split()
    importlib.invalidate_caches()
    start = time.perf_counter()
    if what == "new":
        # Creates the schema and migrates it, in this process.
        Customer(schema_name=schema[0]).save(verbosity=0)
    else:
        call_command("migrate_schemas", tenant=True, interactive=False, verbosity=0)
    print((time.perf_counter() - start) * 1000, flush=True)
