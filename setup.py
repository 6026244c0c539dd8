"""The package as settings.ini describes it: `pip install .` for the library, `.[study]` with what the paper's study
needs, `.[dev]` with the tools for work in the repository."""
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
study = cfg["study_requirements"].split()

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    keywords=cfg["keywords"],
    packages=find_packages(include=["lmd", "lmd.*"]),
    python_requires=">=" + cfg["min_python"],
    install_requires=cfg["requirements"].split(),
    extras_require={"study": study, "dev": study + cfg["dev_requirements"].split(),
                    "features": cfg["features_requirements"].split()},
    package_data={"lmd": ["py.typed", "__init__.pyi"]},
    project_urls={"Method": "https://arxiv.org/abs/2302.10326"},
    classifiers=[
        "Development Status :: 4 - Beta", "Intended Audience :: Science/Research", "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11", "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence", "Typing :: Typed"],
    entry_points={"console_scripts": cfg["console_scripts"].split()},
)
