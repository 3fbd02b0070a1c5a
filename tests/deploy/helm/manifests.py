"""Reads files of YAML, checks what manifests of Kubernetes are in them, and prints all as JSON.

usage: manifests.py VERSION,VERSION,... FILE...

For each file: the documents, what is wrong with them by the schemas of these versions of Kubernetes,
and the kinds for which there is no schema.
"""

import functools
import json
import sys

import kubernetes_validate.utils as kubernetes
import yaml

# A definition is read once, and not for each manifest.
kubernetes.schema_contents = functools.lru_cache(maxsize=None)(kubernetes.schema_contents)


class Loader(yaml.SafeLoader):
    """As strict as Kubernetes: of two equal keys of a mapping, one would be lost."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{node.start_mark}: {key} is there twice")
        return super().construct_mapping(node, deep)


def faults(document, version):
    try:
        kubernetes.validate(document, version, strict=True)
    except kubernetes.ValidationError as error:
        where = ".".join(str(step) for step in error.absolute_path)
        yield f"{version}: {document['kind']}: {where}: {error.message}"


def looked_at(path, versions):
    with open(path, encoding="utf-8") as file:
        documents = [document for document in yaml.load_all(file, Loader) if document]
    wrong, unknown = [], set()
    for document in documents:
        if "apiVersion" not in document or "kind" not in document:
            continue
        try:
            for version in versions:
                wrong.extend(faults(document, version))
        except kubernetes.SchemaNotFoundError:
            unknown.add(document["kind"])
    return {"documents": documents, "faults": wrong, "unknown": sorted(unknown)}


if __name__ == "__main__":
    versions = sys.argv[1].split(",")
    json.dump({path: looked_at(path, versions) for path in sys.argv[2:]}, sys.stdout)
