"""Sign in with a wallet, in Django under ASGI: `uvicorn examples.websites.django_shop:app`, behind a proxy with TLS.

In a project of your own, settings and urls stay where they are; `asgi.py` has the last line.
"""

import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from handclasp.service.beside import beside
from handclasp.service.embedded import create_embedded_app
from handclasp.service.frameworks.django import requires_sign_in
from handclasp.service.records import SqliteRecords
from handclasp.service.signin import SignInSettings

wallets = create_embedded_app(
    SignInSettings(origins=("https://shop.example",)), records=SqliteRecords("shop.db")
)


@requires_sign_in(wallets)
async def me(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"account": str(request.signed_in.account)})


@csrf_exempt  # the origin is checked
@require_POST
@requires_sign_in(wallets)
async def buy(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"sold_to": str(request.signed_in.account)})


urlpatterns = [path("me", me), path("buy", buy)]

settings.configure(
    ALLOWED_HOSTS=["shop.example"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY") or os.urandom(32).hex(),
)
django.setup()
app = beside(get_asgi_application(), wallets)
