"""Sign in with a wallet, in Starlette: `uvicorn examples.websites.starlette_shop:app`, behind a proxy with TLS."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from handclasp.service.embedded import WELL_KNOWN, create_embedded_app
from handclasp.service.frameworks.starlette import signed_in
from handclasp.service.records import SqliteRecords
from handclasp.service.signin import SignInSettings

wallets = create_embedded_app(
    SignInSettings(origins=("https://shop.example",)), records=SqliteRecords("shop.db")
)
whoever_is_signed_in = signed_in(wallets)


async def me(request: Request) -> JSONResponse:
    return JSONResponse({"account": str((await whoever_is_signed_in(request)).account)})


async def buy(request: Request) -> JSONResponse:  # another origin's request never gets past the first line
    return JSONResponse({"sold_to": str((await whoever_is_signed_in(request)).account)})


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[None]:
    yield
    await wallets.shut_down()


app = Starlette(
    routes=[
        Route("/me", me),
        Route("/buy", buy, methods=["POST"]),
        Mount("/handclasp", wallets),
        Mount(WELL_KNOWN, wallets),
    ],
    lifespan=lifespan,
)
