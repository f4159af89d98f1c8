"""Data sets and loaders."""

from graphc.utils import data as data
