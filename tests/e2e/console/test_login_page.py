"""The login page in Chromium, on a service with keys: what a browser keeps, what it is told, and how it comes back."""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, Request, Route, expect

from persistence.access import Authority
from stack.supervisor import Stack
from tests.e2e.console.conftest import Complaints, overflow, violations

__all__ = ["Authority"]
