"""The repository of packages: upload, list, read, remove.

`Packages` is the service; `inspect` looks into an archive, `manifest` reads its `service.json`.
"""

from hub.packages.service import Package, Packages, UploadSpec

__all__ = ["Package", "Packages", "UploadSpec"]
