//! Which znodes a load touches: paths of one length, and how keys are drawn.

use std::str::FromStr;

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use rand_distr::{Distribution as _, Zipf};

/// Digits of a directory's number.
const DIRECTORY_DIGITS: usize = 5;

/// Numbered znodes below a root, in directories: `<root>/d00000/0000000042`, all of one length.
#[derive(Clone, Debug)]
pub struct Keyspace {
    /// How many there are.
    pub count: u64,
    /// How many of them share a parent.
    pub per_directory: u64,
    root: String,
    digits: usize,
}

impl Keyspace {
    /// Paths take `path_bytes`, or more if the root leaves no room for ten digits.
    pub fn new(root: &str, count: u64, per_directory: u64, path_bytes: usize) -> Self {
        let fixed = root.len() + "/d".len() + DIRECTORY_DIGITS + "/".len();
        let digits = path_bytes.saturating_sub(fixed).max(10);
        Self { count, per_directory: per_directory.max(1), root: root.to_owned(), digits }
    }

    /// How many directories there are.
    pub fn directories(&self) -> u64 {
        self.count.div_ceil(self.per_directory)
    }

    /// How many keys a directory holds.
    pub fn keys_in(&self, directory: u64) -> u64 {
        self.count.saturating_sub(directory * self.per_directory).min(self.per_directory)
    }

    /// Bytes of every key's path.
    pub fn path_bytes(&self) -> usize {
        self.root.len() + "/d".len() + DIRECTORY_DIGITS + "/".len() + self.digits
    }

    /// Appends the path of a key.
    pub fn path(&self, key: u64, out: &mut Vec<u8>) {
        self.child(b'd', key / self.per_directory, key, out);
    }

    /// Appends the path of a directory.
    pub fn directory(&self, directory: u64, out: &mut Vec<u8>) {
        self.parent(b'd', directory, out);
    }

    /// Appends the path of what a connection creates: directories of their own, letter `x`.
    pub fn created(&self, connection: u64, number: u64, out: &mut Vec<u8>) {
        self.child(b'x', connection, number, out);
    }

    /// Appends the path of the directory that holds what a connection creates.
    pub fn created_directory(&self, connection: u64, out: &mut Vec<u8>) {
        self.parent(b'x', connection, out);
    }

    fn parent(&self, letter: u8, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.root.as_bytes());
        out.extend_from_slice(&[b'/', letter]);
        append_digits(number, DIRECTORY_DIGITS, out);
    }

    fn child(&self, letter: u8, directory: u64, number: u64, out: &mut Vec<u8>) {
        self.parent(letter, directory, out);
        out.push(b'/');
        append_digits(number, self.digits, out);
    }
}

fn append_digits(mut number: u64, digits: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + digits, b'0');
    for byte in out[start..].iter_mut().rev() {
        if number == 0 {
            break;
        }
        *byte = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// How keys are drawn, as given on the command line: `uniform`, `sequential`, `zipf:0.99`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub enum Distribution {
    /// Each as often as the other.
    Uniform,
    /// One after the other.
    Sequential,
    /// The k-th most popular is drawn in proportion to 1 / k^s.
    Zipf(f64),
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "sequential" => Ok(Self::Sequential),
            None if text == "zipf" => Ok(Self::Zipf(0.99)),
            Some(("zipf", exponent)) => match exponent.parse::<f64>() {
                Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(Self::Zipf(exponent)),
                _ => Err(format!("zipf's exponent must be from 0 to 10, not {exponent}")),
            },
            _ => Err(format!("{text}: give uniform, sequential, zipf or zipf:<exponent>")),
        }
    }
}

/// Draws keys.
#[derive(Debug)]
pub struct Picker {
    count: u64,
    next: u64,
    zipf: Option<Zipf<f64>>,
    sequential: bool,
}

impl Picker {
    /// Draws from `0..count`; sequential ones start at `first`.
    pub fn new(distribution: Distribution, count: u64, first: u64) -> Self {
        let count = count.max(1);
        let zipf = match distribution {
            Distribution::Zipf(exponent) => Zipf::new(count as f64, exponent).ok(),
            Distribution::Uniform | Distribution::Sequential => None,
        };
        let sequential = distribution == Distribution::Sequential;
        Self { count, next: first % count, zipf, sequential }
    }

    /// The next key.
    pub fn pick(&mut self, random: &mut Xoshiro256PlusPlus) -> u64 {
        if self.sequential {
            self.next = if self.next + 1 >= self.count { 0 } else { self.next + 1 };
            return self.next;
        }
        match &self.zipf {
            // Popular keys are spread over the tree: neighbours in rank are not neighbours in name.
            Some(zipf) => (zipf.sample(random) as u64 - 1).wrapping_mul(2_654_435_761) % self.count,
            None => random.random_range(0..self.count),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn paths_have_one_length_and_name_their_directory() {
        let keys = Keyspace::new("/bench", 2500, 1000, 30);
        let mut path = Vec::new();
        keys.path(2042, &mut path);
        assert_eq!(String::from_utf8(path).unwrap(), "/bench/d00002/0000000000002042");
        assert_eq!((keys.path_bytes(), keys.directories(), keys.keys_in(2)), (30, 3, 500));
    }

    #[test]
    fn zipf_draws_few_keys_often_and_uniform_does_not() {
        let most = |distribution: &str| {
            let mut picker = Picker::new(distribution.parse().unwrap(), 1000, 0);
            let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
            let mut counts = vec![0; 1000];
            (0..100_000).for_each(|_| counts[picker.pick(&mut random) as usize] += 1);
            counts.into_iter().max().unwrap()
        };
        assert!(most("uniform") < 200);
        assert!(most("zipf:0.99") > 8_000);
        assert_eq!(most("sequential"), 100);
    }
}
