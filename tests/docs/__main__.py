"""Write the tables of README and the runbook anew, and the manifests that are made from code."""

from tests.docs.tables import PAGES, manifests, written

for page in PAGES:
    page.write_text(written(page))
for path, text in manifests().items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
