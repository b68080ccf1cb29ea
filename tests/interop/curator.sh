#!/usr/bin/env bash
# Every recipe of Curator, through the Java client.
# usage: curator.sh zookeeper|RINGKEEPER_BINARY
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$INTEROP_DIR/server.sh"

[ $# -eq 1 ] || die "usage: curator.sh zookeeper|RINGKEEPER_BINARY"
curator_release=5.9.0
jars=$INTEROP_CACHE/curator
classes=$INTEROP_CACHE/curator-classes

fetch_curator() {
    need javac openjdk-17-jdk-headless
    local pom=$SERVER_SCRATCH/pom.xml
    cat >"$pom" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>ringkeeper</groupId>
  <artifactId>curator-jars</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.curator</groupId><artifactId>curator-recipes</artifactId><version>$curator_release</version></dependency>
    <dependency><groupId>org.apache.zookeeper</groupId><artifactId>zookeeper</artifactId><version>$ZOOKEEPER_RELEASE</version></dependency>
  </dependencies>
</project>
POM
    maven -f "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$jars"
}

compile_recipes() {
    rm -rf "$classes"
    javac -nowarn -d "$classes" -cp "$jars/*" "$INTEROP_DIR"/curator/*.java
}

once "curator-jars-$curator_release-$ZOOKEEPER_RELEASE" fetch_curator
once "curator-classes-$(cat "$INTEROP_DIR"/curator/*.java | sha256sum | cut -c 1-12)" compile_recipes

# Containers and TTL nodes are looked at often, so that nobody has to wait for their end.
server_start "$1" curator extendedTypesEnabled=true znode.container.checkIntervalMs=100 tickTime=500
# Curator reads the ensemble's members from the server; standalone has none to tell.
timeout 300 java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx512m -cp "$classes:$jars/*" \
    -Dzookeeper.sasl.client=false Main "127.0.0.1:$SERVER_PORT" 2>"$SERVER_SCRATCH/client.log"
