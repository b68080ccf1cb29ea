//! Where results go: the terminal, JSON lines, HdrHistogram's files, a page with pictures.

pub mod charts;
pub mod page;

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::cli::Outcome;
use crate::load::report::LoadReport;

/// Percentile lines per halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;
/// Histograms hold nanoseconds, the files microseconds.
const NS_PER_US: f64 = 1000.0;

/// Where results go.
#[derive(Clone, Debug, clap::Args)]
pub struct Output {
    /// Print the result as one line of JSON in place of text
    #[arg(long, global = true)]
    pub json: bool,
    /// A directory for results.jsonl (added to), .hgrm, .hlog, table.md and report.html
    #[arg(long, global = true)]
    pub out: Option<PathBuf>,
}

impl Output {
    /// Prints and writes what was measured.
    pub fn show(&self, outcome: &Outcome) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(&outcome.json)?);
        } else {
            print!("{}", outcome.text);
        }
        match &self.out {
            Some(directory) => write_all(directory, outcome)
                .with_context(|| format!("cannot write to {}", directory.display())),
            None => Ok(()),
        }
    }
}

fn write_all(directory: &Path, outcome: &Outcome) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    let line = serde_json::json!({ "command": outcome.command, "result": outcome.json });
    let path = directory.join("results.jsonl");
    let mut lines = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(lines, "{line}")?;
    for (name, load) in &outcome.loads {
        let stem = file_stem(name);
        write_hgrm(&directory.join(format!("{stem}.hgrm")), &load.tally.all_latencies())?;
        write_hlog(&directory.join(format!("{stem}.hlog")), load)?;
    }
    if let Some(table) = &outcome.table {
        fs::write(directory.join("table.md"), table.markdown())?;
    }
    fs::write(directory.join("report.html"), page::render(outcome)?)?;
    Ok(())
}

/// A name without what file systems and shells mind.
fn file_stem(name: &str) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    let mut stem: String = name.chars().map(plain).collect();
    while stem.contains("--") {
        stem = stem.replace("--", "-");
    }
    stem.trim_matches('-').to_owned()
}

/// The percentile distribution in the form of HdrHistogram's own tools, microseconds.
fn write_hgrm(path: &Path, latencies: &Histogram<u64>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-P)")?;
    for step in latencies.iter_quantiles(TICKS_PER_HALF) {
        let value = step.value_iterated_to() as f64 / NS_PER_US;
        let quantile = step.quantile_iterated_to();
        let count = latencies.count_between(0, step.value_iterated_to());
        if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            writeln!(out, "{value:>12.3} {quantile:>14.12} {count:>10} {inverse:>14.2}")?;
        } else {
            writeln!(out, "{value:>12.3} {quantile:>14.12} {count:>10}")?;
        }
    }
    let (mean, deviation) = (latencies.mean() / NS_PER_US, latencies.stdev() / NS_PER_US);
    let (max, count) = (latencies.max() as f64 / NS_PER_US, latencies.len());
    writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
    writeln!(out, "#[Max     = {max:>12.3}, Total count    = {count:>12}]")?;
    let buckets = latencies.buckets();
    let halves = latencies.distinct_values().div_ceil(usize::from(buckets) + 1);
    writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {:>12}]", halves * 2)?;
    out.flush()?;
    Ok(())
}

/// One histogram per second and operation, nanoseconds.
fn write_hlog(path: &Path, load: &LoadReport) -> anyhow::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let mut serializer = V2DeflateSerializer::new();
    let began = SystemTime::now() - Duration::from_secs_f64(load.options.seconds);
    let mut log = IntervalLogWriterBuilder::new()
        .with_base_time(began)
        .with_start_time(began)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut out, &mut serializer)?;
    for interval in &load.intervals {
        for (kind, latencies) in &interval.tally.latencies {
            log.write_histogram(
                latencies,
                Duration::from_secs(interval.second),
                Duration::from_secs(1),
                Tag::new(kind.word()),
            )
            .map_err(|error| anyhow::anyhow!("interval log: {error:?}"))?;
        }
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::histogram;

    #[test]
    fn names_become_file_names() {
        assert_eq!(file_stem("zookeeper: setData, 64 x 16"), "zookeeper-setData-64-x-16");
    }

    #[test]
    fn a_percentile_file_ends_at_the_whole_count() {
        let mut latencies = histogram();
        (1..=1000).for_each(|value| latencies.record(value * 1000).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.hgrm");
        write_hgrm(&path, &latencies).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(1)
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        assert!(rows.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][2] <= pair[1][2]));
        assert_eq!(rows.last().unwrap()[2], 1000.0);
    }
}
