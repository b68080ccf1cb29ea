//! Rules about the source tree that neither rustfmt nor clippy knows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of more lines than this holds more than one idea.
const FILE_LINES_MAX: usize = 500;
/// A line of more characters than this does not fit beside another one.
const LINE_CHARS_MAX: usize = 100;

#[test]
fn sources_are_tidy() {
    let mut findings = Vec::new();
    for (name, text) in sources() {
        findings.extend(findings_in(&name, &text));
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All sources, each with its name below the repository's root.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in ["engine", "server", "bench", "tests"] {
        collect_sources(&root().join(folder), &mut files);
    }
    assert!(files.len() > 10, "the sources were not found below {}", root().display());
    let named = files.into_iter().map(|file| {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        (name, fs::read_to_string(&file).unwrap())
    });
    named.collect()
}

fn findings_in(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(format!("{name}: {lines} lines; split it, {FILE_LINES_MAX} is the most"));
    }
    if !text.starts_with("//! ") {
        findings.push(format!("{name}: the first line must say what the file is for (//! ...)"));
    }
    for (line, number) in text.lines().zip(1..) {
        if line.chars().count() > LINE_CHARS_MAX {
            findings.push(format!("{name}:{number}: longer than {LINE_CHARS_MAX} characters"));
        }
        let impure = ["use io_uring", "use std::net", "use std::thread", "use server"];
        if name.starts_with("engine/src") && impure.iter().any(|word| line.starts_with(word)) {
            findings.push(format!("{name}:{number}: the engine does no I/O of its own"));
        }
    }
    findings
}

fn collect_sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden && !path.ends_with("target") {
            collect_sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn the_engine_uses_no_layer_above() {
    let list = fs::read_to_string(root().join("engine/src/lib.rs")).unwrap();
    let layers = layers_in(&list);
    assert!(layers.len() > 10, "the engine's modules were not found");
    let mut findings = Vec::new();
    for (name, text) in sources() {
        findings.extend(uses_above(&name, &text, &layers));
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// The layer of each module: `lib.rs` lists them lowest first, each layer below a comment.
fn layers_in(text: &str) -> BTreeMap<&str, usize> {
    let mut layer = 0;
    let mut layers = BTreeMap::new();
    for line in text.lines() {
        layer += usize::from(line.starts_with("// "));
        let module = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'));
        layers.extend(module.map(|module| (module, layer)));
    }
    layers
}

/// What a file of the engine uses of layers above its own.
fn uses_above(name: &str, text: &str, layers: &BTreeMap<&str, usize>) -> Vec<String> {
    let Some(file) = name.strip_prefix("engine/src/") else { return Vec::new() };
    let module = file.split(['/', '.']).next().unwrap();
    let Some(layer) = layers.get(module) else { return Vec::new() };
    let used = text.split("crate::").skip(1).map(|rest| {
        rest.split(|char: char| char != '_' && !char.is_ascii_alphanumeric()).next().unwrap()
    });
    let above = used.filter(|used| layers.get(used).is_some_and(|above| above > layer));
    above.map(|used| format!("{name}: uses {used}, a layer above {module}")).collect()
}

/// Names from outside the repository that mean nothing to its readers, in halves: this file is
/// looked at, too.
const FOREIGN: [[&str; 2]; 3] = [["/wo", "rk/"], ["zookeeper-", "facts"], ["BRIEF", ".md"]];

/// Folders of the repository's root and below that hold nothing of the repository's own.
const NOT_OURS: [&str; 4] = ["target", ".git", ".cache", "ringkeeper-data"];

#[test]
fn documents_link_to_what_is_there_and_nothing_names_another_place() {
    let mut files = Vec::new();
    collect_files(root(), &mut files);
    let mut findings = Vec::new();
    for file in files {
        // Only text can name or link anything.
        let Ok(text) = String::from_utf8(fs::read(&file).unwrap()) else { continue };
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        findings.extend(foreign_names_in(&name, &text));
        if name == "README.md" || name.starts_with("docs/") {
            let folder = file.parent().unwrap();
            findings.extend(dead_links_in(&name, &text, |target| folder.join(target).exists()));
        }
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn foreign_names_in(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if FOREIGN.iter().any(|halves| line.contains(&halves.concat())) {
            findings.push(format!("{name}:{number}: names what is not part of the repository"));
        }
    }
    findings
}

/// Links to other files (`](target)`), relative to the document's folder.
fn dead_links_in(name: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let files = links.map(|(link, _)| link.split_once('#').map_or(link, |(file, _)| file));
    let relative = files.filter(|file| !file.is_empty() && !file.contains("://"));
    let dead = relative.filter(|file| !exists(file));
    dead.map(|file| format!("{name}: links to {file}, which is not there")).collect()
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if NOT_OURS.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        if path.is_dir() {
            collect_files(&path, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
}

#[test]
fn the_rules_can_fail() {
    let text = FOREIGN.map(|halves| halves.concat()).join("\n");
    assert_eq!(foreign_names_in("docs/x.md", &text).len(), FOREIGN.len());
    let links = "[a](there.md#part) [b](gone.md) [c](https://example.org/gone) [d](#here)";
    let dead = dead_links_in("docs/x.md", links, |file| file == "there.md");
    assert_eq!(dead, ["docs/x.md: links to gone.md, which is not there"]);

    assert_eq!(findings_in("engine/src/x.rs", "//! Fine.\n"), Vec::<String>::new());
    let long = format!("//! x\n{}\n", "y".repeat(LINE_CHARS_MAX + 1));
    assert_eq!(findings_in("server/src/x.rs", &long).len(), 1);
    assert_eq!(findings_in("engine/src/x.rs", "use std::thread;\n").len(), 2);
    assert_eq!(findings_in("tests/x.rs", &"//! x\n".repeat(FILE_LINES_MAX + 1)).len(), 1);

    let layers = layers_in("// One.\npub mod low;\npub mod below;\n\n// Two.\npub mod high;\n");
    assert_eq!(
        uses_above("engine/src/high.rs", "use crate::low;\n", &layers),
        Vec::<String>::new()
    );
    assert_eq!(
        uses_above("engine/src/low/a.rs", "use crate::below;\n", &layers),
        Vec::<String>::new()
    );
    assert_eq!(uses_above("engine/src/low/a.rs", "use crate::high::X;\n", &layers).len(), 1);
}
