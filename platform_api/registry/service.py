"""Everything that the registry offers, to its routes; and the desk that the back office runs."""

from __future__ import annotations

from platform_api.database import Database
from platform_api.kernel.audit import Audit
from platform_api.kernel.context import Kernel
from platform_api.kernel.events import Events
from platform_api.ports import RightsPort
from platform_api.registry.certificates import Certificates
from platform_api.registry.copyrights import Copyrights
from platform_api.registry.desk import Part, RegistryDesk
from platform_api.registry.license_records import LicenseIssues, LicenseRecords, LicenseRevocations
from platform_api.registry.registrations import Registrations

__all__ = ["EVENTS", "RegistryService", "registry_desk"]

EVENTS = (
    "copyright.registered", "copyright.failed", "certificate.issued", "license.recorded", "license.record_revoked",
    "license.record_failed", "chain.tx_confirmed", "chain.tx_failed",
)  # fmt: skip


class RegistryService:
    """One part for each concern. None of them speaks to the chain."""

    def __init__(self, kernel: Kernel) -> None:
        self.copyrights = Copyrights(kernel)
        self.certificates = Certificates(kernel)
        self.records = LicenseRecords(kernel)


def registry_desk(database: Database, chain: RightsPort) -> RegistryDesk:
    """What brings documents to the chain: revocations, works, and licences of them, in turn."""
    events = Events(EVENTS)
    common = (database, chain, events, Audit())
    parts: list[Part] = [LicenseRevocations(*common), Registrations(*common), LicenseIssues(*common)]
    return RegistryDesk(database, chain, events, parts)
