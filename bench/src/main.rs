//! The `ringkeeper-bench` binary: measures any server that speaks ZooKeeper's client protocol.

fn main() -> anyhow::Result<()> {
    anyhow::bail!("nothing to measure with yet")
}
