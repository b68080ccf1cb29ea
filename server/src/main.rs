//! The `ringkeeper` binary: arguments in, exit code out.

fn main() -> anyhow::Result<()> {
    server::run()
}
