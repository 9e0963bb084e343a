"""Write the tables of README and the runbook anew."""

from tests.docs.tables import PAGES, written

for page in PAGES:
    page.write_text(written(page))
