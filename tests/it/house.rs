//! The house: floors, doors and the size of rooms, read off the source itself.

use std::{fs, path::Path};

/// The modules of each floor, lowest first. On a floor with an order, a module may know those after it.
const FLOORS: [&[&str]; 5] = [
    &["trace", "policy", "event", "error", "pb"],
    &["lambda", "admission", "telemetry"],
    &["execute"],
    &["grpc", "http"],
    &["cli", "app", "config"],
];

/// The crates that only some modules may name.
const DOORS: [(&str, &[&str]); 10] = [
    ("aws_", &["lambda/", "local/frames.rs"]),
    ("tonic", &["grpc/", "pb.rs"]),
    ("prost", &["grpc/", "pb.rs"]),
    ("clap", &["cli/"]),
    ("moka", &["lambda/pool.rs", "execute/authorize.rs", "admission/lanes.rs", "policy/callers/jwt.rs"]),
    ("jsonwebtoken", &["policy/callers/"]),
    ("axum", &["http/", "grpc/json.rs"]),
    ("saphyr", &["config/node.rs"]),
    ("opentelemetry", &["telemetry/"]),
    ("prometheus", &["telemetry/"]),
];

/// The wall.
const MOST_LINES: usize = 500;

fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    assert!(files.len() > 30, "the source was found");
    files
}

fn collect(directory: &Path, prefix: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = fs::read_to_string(entry.path()).unwrap();
            let code = text.split("#[cfg(test)]\n#[allow").next().unwrap();
            let code = code.split("#[cfg(test)]\nmod").next().unwrap();
            files.push((name, code.to_owned()));
        }
    }
}

/// Lines that are code: no comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with("//"))
}

fn rank(module: &str) -> Option<(usize, usize)> {
    FLOORS
        .iter()
        .enumerate()
        .find_map(|(floor, modules)| modules.iter().position(|known| *known == module).map(|place| (floor, place)))
}

/// Floors whose modules may know those after them; on the others nobody knows a neighbour.
fn is_ordered(floor: usize) -> bool {
    matches!(floor, 0 | 4)
}

#[test]
fn modules_import_from_lower_floors_only() {
    for (file, text) in sources() {
        let module = file.split(['/', '.']).next().unwrap();
        let Some((floor, place)) = rank(module) else {
            assert!(["main", "lib", "local"].contains(&module), "{module} has no floor");
            continue;
        };
        for known in names_after_crate(&text) {
            if known == module {
                continue;
            }
            if known == "local" {
                assert!(module == "cli", "{file}: only the command line knows `local`");
                continue;
            }
            let (known_floor, known_place) = rank(&known).unwrap_or_else(|| panic!("{file}: {known} has no floor"));
            let below = known_floor < floor || (known_floor == floor && is_ordered(floor) && known_place > place);
            assert!(below, "{file} knows {known}, which is not below it");
        }
    }
}

/// The modules that a file names after `crate::`.
fn names_after_crate(text: &str) -> Vec<String> {
    let text: String = code(text).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for part in text.split("crate::").skip(1) {
        if let Some(block) = part.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for character in block.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.push(std::mem::take(&mut name)),
                    _ if depth == 0 => name.push(character),
                    _ => {}
                }
            }
            names.push(name);
        } else {
            names.push(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
        .into_iter()
        .map(|name| name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn crates_with_a_door_are_named_behind_it_only() {
    for (file, text) in sources() {
        for (crate_, doors) in DOORS {
            if doors.iter().any(|door| file.starts_with(door)) {
                continue;
            }
            for line in code(&text) {
                let named = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').any(|word| {
                    word.split("::").next().is_some_and(|first| first.starts_with(crate_)) && word.contains("::")
                });
                assert!(!named, "{file} names {crate_}: {line}");
            }
        }
    }
}

#[test]
fn rooms_are_small_and_say_what_they_are_for() {
    let mut lengths = Vec::new();
    for (file, text) in sources() {
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("//! ") && first.len() > 10, "{file} does not say what it is for");
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES, "{file} has {lines} lines");
        lengths.push(lines);
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median < 150, "the median room has {median} lines");
}
