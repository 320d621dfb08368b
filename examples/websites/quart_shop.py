"""Sign in with a wallet, in Quart: `hypercorn examples.websites.quart_shop:app`, behind a proxy with TLS."""

from quart import Quart, g

from handclasp.service.beside import beside
from handclasp.service.embedded import create_embedded_app
from handclasp.service.frameworks.quart import requires_sign_in
from handclasp.service.records import SqliteRecords
from handclasp.service.signin import SignInSettings

wallets = create_embedded_app(
    SignInSettings(origins=("https://shop.example",)), records=SqliteRecords("shop.db")
)
website = Quart(__name__)


@website.get("/me")
@requires_sign_in(wallets)
async def me() -> dict[str, str]:
    return {"account": str(g.signed_in.account)}


@website.post("/buy")
@requires_sign_in(wallets)
async def buy() -> dict[str, str]:  # another origin's request never gets here
    return {"sold_to": str(g.signed_in.account)}


app = beside(website, wallets)
