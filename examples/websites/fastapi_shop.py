"""Sign in with a wallet, in FastAPI: `uvicorn examples.websites.fastapi_shop:app`, behind a proxy with TLS."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI

from handclasp.service.embedded import WELL_KNOWN, create_embedded_app
from handclasp.service.frameworks.starlette import signed_in
from handclasp.service.records import SqliteRecords
from handclasp.service.signin import SignedIn, SignInSettings

wallets = create_embedded_app(
    SignInSettings(origins=("https://shop.example",)), records=SqliteRecords("shop.db")
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    yield
    await wallets.shut_down()


app = FastAPI(lifespan=lifespan)
app.mount("/handclasp", wallets)
app.mount(WELL_KNOWN, wallets)
Me = Annotated[SignedIn, Depends(signed_in(wallets))]


@app.get("/me")
async def me(signed_in: Me) -> dict[str, str]:
    return {"account": str(signed_in.account)}


@app.post("/buy")
async def buy(signed_in: Me) -> dict[str, str]:  # another origin's request never gets here
    return {"sold_to": str(signed_in.account)}
