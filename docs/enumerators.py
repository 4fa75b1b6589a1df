#!/usr/bin/env python3
"""Enumerators without a meaning, which Doxygen does not warn of: neither a ///< of their own, nor named by the enum's.

  docs/enumerators.py FOLDER      Doxygen's XML; prints a line for each
"""
import pathlib
import sys
import xml.etree.ElementTree


def words(element):
    parts = (element.find(part) for part in ("briefdescription", "detaileddescription"))
    return "".join("".join(part.itertext()) for part in parts).strip()


def main():
    found = set()
    for path in pathlib.Path(sys.argv[1]).glob("*.xml"):
        for enum in xml.etree.ElementTree.parse(path).iter("memberdef"):
            if enum.get("kind") != "enum":
                continue
            for value in enum.findall("enumvalue"):
                name = value.find("name").text
                if not words(value) and name not in words(enum):
                    place = enum.find("location")
                    what = f"{enum.find('name').text}::{name} (enumerator) is not documented."
                    found.add(f"{place.get('file')}:{place.get('line')}: warning: {what}")
    print("\n".join(sorted(found)), end="\n" if found else "")


if __name__ == "__main__":
    main()
