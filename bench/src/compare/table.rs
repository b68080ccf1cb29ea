//! The table of a comparison: medians, spreads, ratios, multiples of the floors.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::Sample;
use crate::plan::Work;
use crate::recovery::median;

/// Everything that was sampled, and what it means.
#[derive(Clone, Debug)]
pub struct Table {
    /// The servers, in the plan's order.
    pub servers: Vec<String>,
    /// The one that others are compared with.
    pub reference: String,
    /// What was measured.
    pub works: Vec<Work>,
    /// The figures.
    pub samples: Vec<Sample>,
    /// The floors of each repeat, microseconds.
    pub floors: Vec<BTreeMap<String, f64>>,
}

/// One work and one server.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The work.
    pub work: String,
    /// The server.
    pub server: String,
    /// The unit of the figures.
    pub unit: String,
    /// The median,
    pub median: f64,
    /// the least
    pub min: f64,
    /// and the most of the repeats.
    pub max: f64,
    /// Median of the server's CPU time per operation, microseconds.
    pub cpu_us: Option<f64>,
    /// How many times better than the reference, medians.
    pub times: Option<f64>,
    /// The same within each repeat: the least
    pub times_min: Option<f64>,
    /// and the most.
    pub times_max: Option<f64>,
    /// The figure as a multiple of its floor.
    pub of_floor: Option<f64>,
}

impl Table {
    /// An empty table.
    pub fn new(servers: Vec<String>, reference: String, works: Vec<Work>) -> Self {
        Self { servers, reference, works, samples: Vec::new(), floors: Vec::new() }
    }

    /// One row per work and server that has a figure.
    pub fn rows(&self) -> Vec<Row> {
        let all = (0..self.works.len())
            .flat_map(|work| self.servers.iter().map(move |server| (work, server)));
        all.filter_map(|(work, server)| self.row(work, server)).collect()
    }

    fn row(&self, number: usize, server: &str) -> Option<Row> {
        let work = &self.works[number];
        let figures = self.figures(number, server);
        if figures.is_empty() {
            return None;
        }
        let values: Vec<f64> = figures.values().copied().collect();
        let middle = median(values.clone());
        let reference = self.figures(number, &self.reference);
        let compared = server != self.reference && !reference.is_empty();
        let paired: Vec<f64> = figures
            .iter()
            .filter_map(|(repeat, figure)| {
                Some(work.better.times(*figure, *reference.get(repeat)?))
            })
            .collect();
        let against = median(reference.values().copied().collect());
        let floor = self.floor(&work.floor);
        Some(Row {
            work: work.name.clone(),
            server: server.to_owned(),
            unit: work.unit.clone(),
            median: middle,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            cpu_us: self.cpu_us(number, server),
            times: compared.then(|| work.better.times(middle, against)),
            times_min: paired.iter().copied().min_by(f64::total_cmp).filter(|_| compared),
            times_max: paired.iter().copied().max_by(f64::total_cmp).filter(|_| compared),
            of_floor: floor.map(|floor| middle / (floor * work.scale)),
        })
    }

    /// Figures by repeat.
    fn figures(&self, work: usize, server: &str) -> BTreeMap<usize, f64> {
        let mine = |sample: &&Sample| sample.work == work && sample.server == server;
        self.samples.iter().filter(mine).map(|sample| (sample.repeat, sample.figure)).collect()
    }

    fn cpu_us(&self, work: usize, server: &str) -> Option<f64> {
        let mine = |sample: &&Sample| sample.work == work && sample.server == server;
        let cpu: Vec<f64> =
            self.samples.iter().filter(mine).filter_map(|sample| sample.cpu_us).collect();
        (!cpu.is_empty()).then(|| median(cpu))
    }

    /// The sum of some floors, each the median of its repeats.
    fn floor(&self, names: &[String]) -> Option<f64> {
        if names.is_empty() {
            return None;
        }
        names.iter().map(|name| self.median_floor(name)).sum()
    }

    fn median_floor(&self, name: &str) -> Option<f64> {
        let values: Vec<f64> =
            self.floors.iter().filter_map(|floors| floors.get(name).copied()).collect();
        (!values.is_empty()).then(|| median(values))
    }

    /// The table in Markdown, as a README shows it.
    pub fn markdown(&self) -> String {
        let mut text = String::from("| work | server | median (spread) | CPU/op | ratio (spread) ");
        text.push_str("| x floor |\n|---|---|--:|--:|--:|--:|\n");
        for row in self.rows() {
            let cells = [
                row.work.clone(),
                row.server.clone(),
                row.figure_cell(),
                row.cpu_us.map(|cpu| format!("{} us", number(cpu))).unwrap_or_default(),
                row.ratio_cell(),
                row.of_floor.map(|times| format!("{times:.2}")).unwrap_or_default(),
            ];
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        text
    }
}

impl Row {
    fn figure_cell(&self) -> String {
        let Self { median, min, max, unit, .. } = self;
        format!("{} {unit} ({} - {})", number(*median), number(*min), number(*max))
    }

    fn ratio_cell(&self) -> String {
        match (self.times, self.times_min, self.times_max) {
            (Some(times), Some(min), Some(max)) => {
                format!("{} x ({} - {})", number(times), number(min), number(max))
            }
            _ => String::new(),
        }
    }
}

/// A number with as many digits as it deserves, thousands set off.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let digits = match value.abs() {
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    let plain = format!("{value:.digits$}");
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let mut grouped = String::new();
    for (index, character) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(character);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, ..) in super::FLOORS {
            if let Some(floor) = self.median_floor(name) {
                writeln!(f, "floor {name}: {floor:.1} us")?;
            }
        }
        let mut work = String::new();
        for row in self.rows() {
            if row.work != work {
                work.clone_from(&row.work);
                writeln!(f, "{work}")?;
            }
            write!(f, "  {:<12} {:<36}", row.server, row.figure_cell())?;
            if let Some(cpu) = row.cpu_us {
                write!(f, "  CPU {} us/op", number(cpu))?;
            }
            if row.times.is_some() {
                write!(f, "  better {}", row.ratio_cell())?;
            }
            if let Some(times) = row.of_floor {
                write!(f, "  {times:.2} x floor")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Better, Via};

    fn table(better: Better) -> Table {
        let work = Work {
            name: "w".into(),
            run: "load get".into(),
            figure: "/x".into(),
            scale: 1.0,
            unit: "us".into(),
            better,
            fresh: false,
            via: Via::All,
            floor: vec!["echo-get".into()],
        };
        let mut table = Table::new(vec!["a".into(), "b".into()], "b".into(), vec![work]);
        for (repeat, a, b) in [(0, 10.0, 20.0), (1, 11.0, 44.0), (2, 30.0, 30.0)] {
            for (server, figure) in [("a", a), ("b", b)] {
                let server = server.to_owned();
                table.samples.push(Sample { repeat, server, work: 0, figure, cpu_us: None });
            }
            table.floors.push(BTreeMap::from([("echo-get".to_owned(), 10.0)]));
        }
        table
    }

    #[test]
    fn ratios_are_of_medians_and_their_spread_of_repeats() {
        let rows = table(Better::Lower).rows();
        assert_eq!((rows[0].median, rows[1].median), (11.0, 30.0));
        assert_eq!(rows[0].times, Some(30.0 / 11.0));
        assert_eq!((rows[0].times_min, rows[0].times_max), (Some(1.0), Some(4.0)));
        assert_eq!((rows[1].times, rows[0].of_floor), (None, Some(1.1)));
        assert_eq!(table(Better::Higher).rows()[0].times, Some(11.0 / 30.0));
    }

    #[test]
    fn numbers_are_readable() {
        let shown = [0.5, 12.34, 1234.4, 1_234_567.0, -1000.0].map(number);
        assert_eq!(shown, ["0.50", "12.3", "1,234", "1,234,567", "-1,000"]);
    }
}
