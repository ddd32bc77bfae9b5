"""`GET /`: one page to try prompts with and without latents; it loads nothing from elsewhere."""

import base64
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

PAGE = Path(__file__).with_name("page.html")


def page() -> APIRouter:
    """The address."""
    router = APIRouter()
    content = PAGE.read_text(encoding="utf-8")
    headers = {"content-security-policy": policy(content), "x-content-type-options": "nosniff"}

    @router.get("/")
    async def show() -> HTMLResponse:
        return HTMLResponse(content, headers=headers)

    return router


def policy(content: str) -> str:
    """What the page may do: run its own script and style, and ask this server."""
    [script] = re.findall(r"<script>(.*?)</script>", content, re.DOTALL)
    [style] = re.findall(r"<style>(.*?)</style>", content, re.DOTALL)
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
