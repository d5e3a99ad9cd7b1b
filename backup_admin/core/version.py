"""The version of the product; everything else asks here."""

VERSION = "0.1.0"
