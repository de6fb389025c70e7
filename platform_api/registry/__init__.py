"""The registry: copyrights and licences on the chain, certificates, and the public check."""

from platform_api.kernel.context import Context
from platform_api.registry.certificates import KEY_COLUMN
from platform_api.registry.routes import (
    CertificateController,
    ChainTransactionController,
    CopyrightController,
    LicenseProofController,
    WorkRegistrationController,
)
from platform_api.registry.service import EVENTS, RegistryService

__all__ = ["CONTEXT"]

CONTEXT = Context(
    "registry",
    (
        CopyrightController, WorkRegistrationController, CertificateController, LicenseProofController,
        ChainTransactionController,
    ),
    RegistryService,
    events=EVENTS,
    catalogue=("/v1/copyrights",),
    sealed=(KEY_COLUMN,),
)  # fmt: skip
