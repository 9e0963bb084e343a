"""Write README's tables anew."""

from tests.docs.tables import README, written

README.write_text(written(README.read_text()))
