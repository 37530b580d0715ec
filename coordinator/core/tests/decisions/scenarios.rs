//! Golden scenarios: `tests/scenarios/*.txt`, each under a screen. `UPDATE_GOLDEN=1` rewrites what the core said; read the
//! difference before you commit it.

use std::{fs, path::Path};

use super::script::Script;

fn play(text: &str) -> String {
    let mut script = Script::new();
    let mut out = String::new();
    for line in text.lines() {
        match line.strip_prefix("> ") {
            Some(command) => {
                out.push_str(line);
                out.push('\n');
                for said in script.command(command) {
                    out.push_str(&format!("  {said}\n"));
                }
            }
            None if line.starts_with("  ") => {}
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

#[test]
fn golden() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "scenarios are missing: {}", files.len());
    let mut different = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let expected = fs::read_to_string(&path).unwrap();
        println!("scenario {name}");
        let found = play(&expected);
        assert!(found.lines().count() <= 66, "{name}: more than a screen ({})", found.lines().count());
        if found == expected {
            continue;
        }
        if update {
            fs::write(&path, found).unwrap();
            continue;
        }
        let differs = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
        different.push(format!("{name}: {differs:#?}"));
    }
    let different = different.join("\n");
    assert!(different.is_empty(), "UPDATE_GOLDEN=1 accepts what the core says now:\n{different}");
}
