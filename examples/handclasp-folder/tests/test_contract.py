from pathlib import Path

from handclasp.testing import check_discovery
from handclasp_folder import folder


async def test_a_folder_keeps_the_contract_of_discovery(tmp_path: Path) -> None:
    await check_discovery(folder(tmp_path, interval=0.05), quiet=0.2)
