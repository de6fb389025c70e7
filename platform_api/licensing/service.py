"""Everything that licensing offers, to its routes and to other contexts."""

from __future__ import annotations

from platform_api.kernel.context import Kernel
from platform_api.licensing.applications import Applications
from platform_api.licensing.authorizations import Authorizations
from platform_api.licensing.calendar import Calendar
from platform_api.licensing.derivatives import Derivatives
from platform_api.licensing.fee_refunds import FeeRefunds
from platform_api.licensing.fees import Fees
from platform_api.licensing.grants import Grants
from platform_api.licensing.licenses import Licenses
from platform_api.licensing.seats import Seats
from platform_api.licensing.terms import Terms
from platform_api.licensing.windows import Windows

__all__ = ["LicensingService"]


class LicensingService:
    """One part for each concern, all under the lock of the work that it is about."""

    def __init__(self, kernel: Kernel) -> None:
        self.grants = Grants(kernel)
        self.terms = Terms(kernel)
        self.licenses = Licenses(kernel, self.terms, self.grants)
        self.fees = Fees(kernel, self.licenses, self.grants)
        self.applications = Applications(kernel, self.grants, self.fees)
        self.fee_refunds = FeeRefunds(kernel, self.licenses, self.grants)
        self.derivatives = Derivatives(kernel, self.licenses)
        self.seats = Seats(kernel, self.licenses)
        self.authorizations = Authorizations(kernel)
        self.windows = Windows(kernel)
        self.calendar = Calendar(kernel, self.grants)
