#!/usr/bin/env bash
# Fetches the real ZooKeeper server, its command line client and all they load, as jars, into DIR.
# usage: get-zookeeper.sh DIR
# Does nothing when DIR already holds them. Run a server from it with
#   java -cp 'DIR:DIR/*' org.apache.zookeeper.server.quorum.QuorumPeerMain zoo.cfg
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -eq 1 ] || die "usage: get-zookeeper.sh DIR"
mkdir -p "$1"
jars=$(cd "$1" && pwd)
done_mark=$jars/.zookeeper-$ZOOKEEPER_RELEASE
if [ -e "$done_mark" ]; then exit 0; fi

need java openjdk-17-jdk-headless
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What the server's own pom calls "provided" (metrics, snappy, jetty, jackson, logback, jline,
# commons-cli) has to be asked for by name; the versions are those of the 3.9.3 distribution.
cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>ringkeeper</groupId>
  <artifactId>zookeeper-server-jars</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.zookeeper</groupId><artifactId>zookeeper</artifactId><version>$ZOOKEEPER_RELEASE</version></dependency>
    <dependency><groupId>io.dropwizard.metrics</groupId><artifactId>metrics-core</artifactId><version>4.1.12.1</version></dependency>
    <dependency><groupId>org.xerial.snappy</groupId><artifactId>snappy-java</artifactId><version>1.1.10.5</version></dependency>
    <dependency><groupId>org.eclipse.jetty</groupId><artifactId>jetty-server</artifactId><version>9.4.56.v20240826</version></dependency>
    <dependency><groupId>org.eclipse.jetty</groupId><artifactId>jetty-servlet</artifactId><version>9.4.56.v20240826</version></dependency>
    <dependency><groupId>com.fasterxml.jackson.core</groupId><artifactId>jackson-databind</artifactId><version>2.15.2</version></dependency>
    <dependency><groupId>ch.qos.logback</groupId><artifactId>logback-classic</artifactId><version>1.2.13</version></dependency>
    <dependency><groupId>jline</groupId><artifactId>jline</artifactId><version>2.14.6</version></dependency>
    <dependency><groupId>commons-cli</groupId><artifactId>commons-cli</artifactId><version>1.5.0</version></dependency>
  </dependencies>
</project>
POM
say "fetching ZooKeeper $ZOOKEEPER_RELEASE into $jars"
maven -f "$work/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$jars"

# Warnings only, to the standard error: a log of every request would be a load of its own.
cat >"$jars/logback.xml" <<'LOGBACK'
<configuration>
  <appender name="ERR" class="ch.qos.logback.core.ConsoleAppender">
    <target>System.err</target>
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{0} - %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="ERR"/></root>
</configuration>
LOGBACK
touch "$done_mark"
