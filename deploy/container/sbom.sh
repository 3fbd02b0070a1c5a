#!/bin/sh
# Prints a bill of materials (CycloneDX 1.5) of the crates in a Cargo.lock, those of the tests among
# them: what an image has that was given none. It needs nothing but awk.
set -eu

awk '
function value(line) { sub(/^[a-z]+ = "/, "", line); sub(/"$/, "", line); return line }
function finish(    text) {
    if (name == "xksd") version_of_xksd = version
    if (source !~ /^registry\+/) return
    text = "    {\"type\": \"library\", \"bom-ref\": \"" name "@" version "\", \"name\": \"" name "\""
    text = text ", \"version\": \"" version "\", \"purl\": \"pkg:cargo/" name "@" version "\""
    text = text ", \"hashes\": [{\"alg\": \"SHA-256\", \"content\": \"" checksum "\"}]}"
    components = components (components == "" ? "" : ",\n") text
}
/^\[\[package\]\]$/ { finish(); name = version = source = checksum = "" }
/^name = / { name = value($0) }
/^version = "/ { version = value($0) }
/^source = / { source = value($0) }
/^checksum = / { checksum = value($0) }
END {
    finish()
    print "{"
    print "  \"bomFormat\": \"CycloneDX\",\n  \"specVersion\": \"1.5\",\n  \"version\": 1,"
    print "  \"metadata\": {\"component\": {\"type\": \"application\", \"bom-ref\": \"xksd\","
    print "    \"name\": \"xksd\", \"version\": \"" version_of_xksd "\"}},"
    print "  \"components\": [\n" components "\n  ]\n}"
}' "${1:?usage: sbom.sh CARGO_LOCK}"
