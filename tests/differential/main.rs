//! The differential test: seeded random requests, sent raw to two servers in lockstep; replies,
//! zxid increments and events must be the same but for times and session ids.
//!
//! `tests/interop/differential.sh` starts a real ZooKeeper and a ringkeeper for it. By hand:
//! `LEFT=host:port RIGHT=host:port SEED=1 OPS=20000 cargo run -p ringkeeper-tests --bin
//! differential`, both servers fresh. `PIPELINED=no` sends one request at a time,
//! `KNOWN='/a /b'` names what is there already, `TRACE=yes` prints every step.

mod generator;
mod lockstep;
mod normal;
mod random;
mod requests;
mod script;
mod side;
mod values;
mod wire;

use std::env;
use std::net::SocketAddr;
use std::process::ExitCode;

use generator::{Generator, SLOTS};
use lockstep::{Failure, Lockstep};
use script::Step;
use side::Side;

fn main() -> ExitCode {
    let seed: u64 = setting("SEED", "1").parse().expect("SEED is a number");
    let most: u64 = setting("OPS", "20000").parse().expect("OPS is a number");
    let sides = ["LEFT", "RIGHT"].map(|name| {
        let address: SocketAddr =
            setting(name, "").parse().unwrap_or_else(|_| panic!("{name} must be an address:port"));
        let title = setting(&format!("{name}_NAME"), &name.to_lowercase());
        Side::new(&title, address, SLOTS)
    });
    let known = setting("KNOWN", "").split_whitespace().map(str::to_owned).collect();
    let mut generator = Generator::new(seed, setting("PIPELINED", "yes") == "yes", known);
    let mut lockstep = Lockstep::new(sides, SLOTS);
    let mut sent = 0;
    match run(&mut generator, &mut lockstep, most, &mut sent) {
        Ok(()) => {
            println!(
                "seed {seed}: {sent} requests, {} replies and {} events, no difference",
                lockstep.replies, lockstep.events
            );
            ExitCode::SUCCESS
        }
        Err(Failure::Difference(text)) => {
            println!("seed {seed}: after {sent} requests a difference in the {text}");
            ExitCode::FAILURE
        }
        Err(Failure::Broken { server, error }) => {
            println!("seed {seed}: after {sent} requests {server} failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    generator: &mut Generator,
    lockstep: &mut Lockstep,
    most: u64,
    sent: &mut u64,
) -> Result<(), Failure> {
    let trace = setting("TRACE", "no") == "yes";
    let mut begun = false;
    while *sent < most {
        let step = generator.step();
        if trace {
            print_step(&step);
        }
        let outcome = lockstep.take(&step)?;
        generator.learn(&step, &outcome);
        *sent += lockstep::weight(&step);
        if !begun {
            // The first step opened the first slot.
            lockstep.begin(0)?;
            begun = true;
        }
    }
    Ok(())
}

fn print_step(step: &Step) {
    match step {
        Step::Burst { slot, requests } => {
            println!("burst on slot {slot}");
            requests.iter().for_each(|request| println!("  {}", request.label));
        }
        other => println!("{other:?}"),
    }
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
