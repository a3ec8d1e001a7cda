"""A site made with Django, of a module `urls` that is on the path.

    python django_site.py
"""

import wsgiref.simple_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application

settings.configure(
    ROOT_URLCONF="urls",
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY="for sessions, of which there are none",
    # Those of a new project that may refuse a request.
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
)
server = wsgiref.simple_server.make_server("127.0.0.1", 0, get_wsgi_application())
print(f"listening on {server.server_port}", flush=True)
server.serve_forever()
