# shellcheck shell=bash
# What the interop scripts share: where downloads are kept, free ports, installing tools, tallying.
# Source it first; it turns on `set -euo pipefail`.
set -euo pipefail

INTEROP_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
INTEROP_CACHE=${INTEROP_CACHE:-$INTEROP_DIR/.cache}
# The release that ringkeeper is compared with.
ZOOKEEPER_RELEASE=3.9.3
mkdir -p "$INTEROP_CACHE"

say() { printf '%s\n' "interop: $*" >&2; }

die() {
    say "$*"
    exit 2
}

# need COMMAND [PACKAGE]: makes sure that COMMAND is there, installing the Debian PACKAGE if it may.
need() {
    local command=$1 package=${2:-$1}
    if command -v "$command" >/dev/null; then return; fi
    install_package "$package"
    command -v "$command" >/dev/null || die "'$command' is missing; install the package '$package'"
}

install_package() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        die "the package '$1' is missing and only root on Debian can install it from here"
    fi
    say "installing the package $1"
    {
        apt-get install -y --no-install-recommends "$1" ||
            { apt-get update && apt-get install -y --no-install-recommends "$1"; }
    } >&2
}

# maven ARGUMENTS: Maven with its downloads in our cache.
maven() {
    need mvn maven
    mvn --batch-mode --no-transfer-progress -q -Dstyle.color=never -Dmaven.repo.local="$INTEROP_CACHE/maven" "$@" >&2
}

# once STAMP COMMAND...: runs COMMAND unless it succeeded before; STAMP names what was made, and
# changes when what would be made changes.
once() {
    local stamp=$INTEROP_CACHE/stamps/$1
    shift
    if [ -e "$stamp" ]; then return; fi
    mkdir -p "${stamp%/*}"
    "$@"
    touch "$stamp"
}

# prepare_kazoo: kazoo, the Python client, and what its tests need; KAZOO_PYTHON runs with it.
prepare_kazoo() {
    need python3
    KAZOO_PYTHON=$INTEROP_CACHE/kazoo/bin/python
    once "kazoo-$(sha256sum <"$INTEROP_DIR/kazoo/requirements.txt" | cut -c 1-12)" install_kazoo
}

install_kazoo() {
    python3 -m venv --clear "$INTEROP_CACHE/kazoo" ||
        { install_package python3-venv && python3 -m venv --clear "$INTEROP_CACHE/kazoo"; }
    "$KAZOO_PYTHON" -m pip install --quiet -r "$INTEROP_DIR/kazoo/requirements.txt" >&2
}

CURATOR_RELEASE=5.9.0
# prepare_curator: Curator, the Java client and our programs for them; CURATOR_PATH is a class path.
prepare_curator() {
    local jars=$INTEROP_CACHE/curator classes=$INTEROP_CACHE/curator-classes sources
    need javac openjdk-17-jdk-headless
    once "curator-jars-$CURATOR_RELEASE-$ZOOKEEPER_RELEASE" fetch_curator "$jars"
    sources=$(cat "$INTEROP_DIR"/curator/*.java | sha256sum | cut -c 1-12)
    once "curator-classes-$sources" compile_curator "$classes" "$jars"
    CURATOR_PATH="$classes:$jars/*"
}

fetch_curator() {
    local pom=$INTEROP_CACHE/curator.pom
    cat >"$pom" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>ringkeeper</groupId>
  <artifactId>curator-jars</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.curator</groupId><artifactId>curator-recipes</artifactId><version>$CURATOR_RELEASE</version></dependency>
    <dependency><groupId>org.apache.zookeeper</groupId><artifactId>zookeeper</artifactId><version>$ZOOKEEPER_RELEASE</version></dependency>
  </dependencies>
</project>
POM
    maven -f "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$1"
}

compile_curator() {
    rm -rf "$1"
    javac -nowarn -d "$1" -cp "$2/*" "$INTEROP_DIR"/curator/*.java
}
