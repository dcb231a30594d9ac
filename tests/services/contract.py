"""What every store has to do: a test class over the fixtures ``store`` and ``make_store``.

``make_store(**options)`` makes an empty store, with the options that all stores have: ``record_content``,
``retention_days``, ``content_retention_days`` and ``lease_seconds``. ``store`` is one with none given.
"""

from __future__ import annotations

from tests.services.contract_config import ConfigContract
from tests.services.contract_keys import KeyContract
from tests.services.contract_lineage import LineageContract
from tests.services.contract_pages import PageContract
from tests.services.contract_rates import RateContract
from tests.services.contract_recording import RecordingContract
from tests.services.contract_summaries import SummaryContract
from tests.services.contract_upkeep import UpkeepContract


class StoreContract(
    RecordingContract,
    LineageContract,
    UpkeepContract,
    PageContract,
    SummaryContract,
    KeyContract,
    RateContract,
    ConfigContract,
):
    """The whole contract of ``storage.Store``."""
