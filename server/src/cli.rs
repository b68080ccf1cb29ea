//! The command line: what to run, and settings that count more than the configuration file's.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::config::{Argument, Sources};
use crate::tools::Tool;

/// What `--help` adds to the list of options.
const EXAMPLES: &str = "\
Examples:
  ringkeeper
      Serves on 127.0.0.1:2181, with the data in ./ringkeeper-data. Good for trying it out.
  ringkeeper /etc/zookeeper/zoo.cfg
      Serves as that ZooKeeper configuration says.
  ringkeeper zoo.cfg --client-port 2182 -D snapCount=500000
      The same with two settings changed. The command line counts more than the file.
  ringkeeper 2181 /var/lib/ringkeeper
      Serves on port 2181 of all addresses, with the data in that directory.
  ringkeeper import /etc/zookeeper/zoo.cfg
      Takes over the data of the ZooKeeper that was configured so, and has stopped.

Ask a running server how it is:      echo srvr | nc localhost 2181
Stop it in good order:               kill PID   (SIGTERM; Ctrl-C in a terminal does the same)
Talk to it with any ZooKeeper 3.9 client, for example zkCli.sh -server localhost:2181

Settings and exit codes are described in docs/configuration.md and docs/operations.md.";

/// A coordination server that speaks Apache ZooKeeper's protocol.
///
/// Clients and configuration files made for ZooKeeper 3.9 work with it as they are.
#[derive(Debug, Parser)]
#[command(name = "ringkeeper", version, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do in place of serving.
    #[command(subcommand)]
    pub tool: Option<Tool>,

    /// A zoo.cfg; or, in place of one, a port and a data directory, and perhaps a tick in
    /// milliseconds and the connections that each address may have.
    ///
    /// Without any of these, data goes to ./ringkeeper-data and clients connect to 127.0.0.1:2181.
    #[arg(value_name = "CONFIG | PORT DATA_DIR [TICK [CONNECTIONS]]", num_args = 0..=4)]
    what: Vec<String>,

    /// Where data lives (dataDir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,

    /// The port for clients (clientPort); 0 takes one that is free.
    #[arg(long, value_name = "PORT")]
    client_port: Option<u16>,

    /// The address for clients (clientPortAddress), perhaps with a port: `10.0.0.1`, `[::1]:2181`.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    listen: Option<String>,

    /// How many cores to use (ringkeeper.cores); 0 uses all.
    #[arg(long, value_name = "N")]
    cores: Option<u16>,

    /// How to talk to the kernel (ringkeeper.backend).
    #[arg(long, value_enum)]
    backend: Option<BackendName>,

    /// The unit of time in milliseconds (tickTime). Sessions last 2 to 20 ticks.
    #[arg(long, value_name = "MS")]
    tick_time: Option<u32>,

    /// error, warn, info, debug, trace, or a list like info,server::ring=debug
    /// (ringkeeper.logLevel).
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// Any setting, as a line of zoo.cfg would have it. May be given more than once.
    #[arg(short = 'D', value_name = "KEY=VALUE", value_parser = key_and_value)]
    define: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BackendName {
    /// io_uring where it works, else epoll.
    Auto,
    /// io_uring, or no start.
    #[value(name = "io_uring")]
    IoUring,
    /// epoll and a thread for the log.
    Epoll,
}

/// Why a command line makes no sense although each option does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    /// Two to four words, of which the first is no port.
    #[error("{0:?} is no port; give one configuration file, or a port and a data directory")]
    NoPort(String),
    /// An address that is none.
    #[error("--listen {0:?}: must be an address or a name, perhaps with a port after a colon")]
    Listen(String),
}

pub(crate) fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("there must be a '=' after the key")?;
    if key.trim().is_empty() {
        return Err("there must be a key before the '='".to_owned());
    }
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Cli {
    /// Where the configuration comes from.
    pub fn sources(self) -> Result<Sources, CliError> {
        let mut sources = Sources::default();
        match &self.what[..] {
            [] => {}
            [file] => sources.file = Some(PathBuf::from(file)),
            words => short_form(words, &mut sources)?,
        }
        let numbers = [
            ("--cores", "ringkeeper.cores", self.cores.map(|cores| cores.to_string())),
            ("--tick-time", "tickTime", self.tick_time.map(|ms| ms.to_string())),
        ];
        let texts = [
            ("--data-dir", "dataDir", self.data_dir),
            ("--backend", "ringkeeper.backend", self.backend.map(backend_name)),
            ("--log-level", "ringkeeper.logLevel", self.log_level),
        ];
        if let Some(listen) = self.listen {
            let (host, port) = split_listen(&listen).ok_or(CliError::Listen(listen.clone()))?;
            sources.arguments.push(argument("--listen", "clientPortAddress", host));
            let port = port.map(|port| argument("--listen", "clientPort", port.to_string()));
            sources.arguments.extend(port);
        }
        let port = self.client_port.map(|port| port.to_string());
        let port = ("--client-port", "clientPort", port);
        for (option, key, value) in numbers.into_iter().chain(texts).chain([port]) {
            sources.arguments.extend(value.map(|value| argument(option, key, value)));
        }
        for (key, value) in self.define {
            sources.arguments.push(argument(&format!("-D {key}"), &key, value));
        }
        Ok(sources)
    }
}

// Compat: ServerConfig.parse, which unlike a file puts no limit on connections per address.
fn short_form(words: &[String], sources: &mut Sources) -> Result<(), CliError> {
    let keys = ["clientPort", "dataDir", "tickTime", "maxClientCnxns"];
    if words[0].parse::<u16>().is_err() {
        return Err(CliError::NoPort(words[0].clone()));
    }
    sources.is_short_form = true;
    sources.arguments.push(argument("the short form", "maxClientCnxns", "0".to_owned()));
    let given = keys.iter().zip(words);
    let given = given.map(|(key, word)| argument(&format!("argument {word}"), key, word.clone()));
    sources.arguments.extend(given);
    Ok(())
}

pub(crate) fn argument(option: &str, key: &str, value: String) -> Argument {
    Argument { option: option.to_owned(), key: key.to_owned(), value }
}

fn backend_name(name: BackendName) -> String {
    match name {
        BackendName::Auto => "auto",
        BackendName::IoUring => "io_uring",
        BackendName::Epoll => "epoll",
    }
    .to_owned()
}

/// Host and port of `address[:port]`; an IPv6 address with a port stands in brackets.
fn split_listen(text: &str) -> Option<(String, Option<u16>)> {
    if text.parse::<IpAddr>().is_ok() {
        return Some((text.to_owned(), None));
    }
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port.parse().ok()?),
            None if rest.is_empty() => None,
            None => return None,
        };
        return Some((host.to_owned(), port));
    }
    match text.split_once(':') {
        None if text.is_empty() => None,
        None => Some((text.to_owned(), None)),
        Some((host, port)) if !host.is_empty() => Some((host.to_owned(), Some(port.parse().ok()?))),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Result<&str, &str>) {
        let words = std::iter::once("ringkeeper").chain(line.split_whitespace());
        let shown = match Cli::try_parse_from(words).unwrap().sources() {
            Err(error) => Err(error.to_string()),
            Ok(Sources { file, is_short_form, arguments }) => {
                let file = file.map(|path| path.display().to_string());
                let short = is_short_form.then(|| "short".to_owned());
                let set = arguments.iter().map(|one| format!("{}={}", one.key, one.value));
                Ok(file.into_iter().chain(short).chain(set).collect::<Vec<_>>().join(" "))
            }
        };
        assert_eq!(shown, expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn one_word_is_a_file_and_more_are_the_short_form() {
        check("", Ok(""));
        check("zoo.cfg", Ok("zoo.cfg"));
        check("2181 /d", Ok("short maxClientCnxns=0 clientPort=2181 dataDir=/d"));
        let all = "short maxClientCnxns=0 clientPort=1 dataDir=d tickTime=2 maxClientCnxns=3";
        check("1 d 2 3", Ok(all));
        let wrong = "\"zoo.cfg\" is no port; give one configuration file, or a port and a data \
                     directory";
        check("zoo.cfg /d", Err(wrong));
    }

    #[test]
    fn options_set_what_they_stand_for() {
        check(
            "zoo.cfg --data-dir /d --client-port 1 --cores 2 --backend io_uring --tick-time 5 \
             --log-level debug -D snapCount=7 -Djute.maxbuffer=8",
            Ok("zoo.cfg ringkeeper.cores=2 tickTime=5 dataDir=/d ringkeeper.backend=io_uring \
                ringkeeper.logLevel=debug clientPort=1 snapCount=7 jute.maxbuffer=8"),
        );
    }

    #[test]
    fn listen_takes_an_address_and_perhaps_a_port() {
        check("--listen 10.0.0.1", Ok("clientPortAddress=10.0.0.1"));
        check("--listen ::1", Ok("clientPortAddress=::1"));
        check("--listen [::1]:9", Ok("clientPortAddress=::1 clientPort=9"));
        check("--listen host:9", Ok("clientPortAddress=host clientPort=9"));
        for wrong in ["host:", ":9", "[::1", "[::1]9", "host:99999"] {
            let message = format!(
                "--listen {wrong:?}: must be an address or a name, perhaps with a port after a \
                 colon"
            );
            check(&format!("--listen {wrong}"), Err(&message));
        }
    }

    #[test]
    fn a_tool_needs_to_know_where_the_data_is() {
        let parse = |line: &str| {
            let words = std::iter::once("ringkeeper").chain(line.split_whitespace());
            Cli::try_parse_from(words).map(|cli| cli.tool.is_some()).map_err(|_| ())
        };
        assert_eq!(parse("import zoo.cfg"), Ok(true));
        assert_eq!(parse("import --data-dir /d --data-log-dir /l -D a=b --force"), Ok(true));
        assert_eq!(parse("./import"), Ok(false));
        for wrong in ["import", "import a b"] {
            assert_eq!(parse(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
        let wrong = ["--cores x", "-D novalue", "-D =x", "--backend kqueue", "1 2 3 4 5"];
        for line in wrong {
            let words = std::iter::once("ringkeeper").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn help_names_every_option_and_says_how_to_begin() {
        let help = Cli::command().render_long_help().to_string();
        for word in ["--listen", "KEY=VALUE", "./ringkeeper-data", "SIGTERM", "echo srvr"] {
            assert!(help.contains(word), "{word} is not in\n{help}");
        }
    }
}
