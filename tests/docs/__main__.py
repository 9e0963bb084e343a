"""Write the tables of README and the runbook anew, and the CustomResourceDefinition."""

from tests.docs.tables import CRD, PAGES, written
from vnode.peers import crd

for page in PAGES:
    page.write_text(written(page))

CRD.write_text(crd.text())
