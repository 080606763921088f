//! What is in a file of the configuration. Only regular files are read, and none that is longer than what belongs there.
//!
//! Whoever opens a named pipe waits for a writer, and who reads a device may do so without end: neither would come back.

use std::{
    fs::{self, File, FileType, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The most that a file may have, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most(u64);

impl Most {
    /// The configuration's own file: tens of thousands of policies.
    pub(super) const CONFIGURATION: Self = Self(64 << 20);
    /// A file that it names: a secret, a certificate with its chain, authorities, a JWKS. A system's whole bundle of
    /// authorities has a quarter of it.
    pub(super) const NAMED: Self = Self(1 << 20);
}

/// What is in a file; wiped from memory when it is dropped.
///
/// # Errors
/// If it cannot be read, is no regular file, or is longer than it may be.
pub(super) fn read(path: &Path, most: Most) -> io::Result<Zeroizing<Vec<u8>>> {
    // Before it is opened, as that alone does something to some devices, and after, as it may be another one by then.
    fits(&fs::metadata(path)?, most)?;
    let file = open(path)?;
    let length = fits(&file.metadata()?, most)?;
    // Room for all of it, so that no copy is left behind when it grows. One byte too many shows that it has grown.
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or_default()));
    file.take(most.0 + 1).read_to_end(&mut content)?;
    match content.len() as u64 > most.0 {
        true => Err(too_long(most)),
        false => Ok(content),
    }
}

/// The text in a file.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub(super) fn read_text(path: &Path, most: Most) -> io::Result<Zeroizing<String>> {
    let mut content = read(path, most)?;
    String::from_utf8(std::mem::take(&mut *content)).map(Zeroizing::new).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        wrong("it is not UTF-8".to_owned())
    })
}

/// Opens a file without waiting for anybody at its other end.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or_default()).open(path)
}

/// Its length, if it is a regular file that is not too long.
fn fits(metadata: &Metadata, most: Most) -> io::Result<u64> {
    let kind = metadata.file_type();
    if !kind.is_file() {
        return Err(wrong(format!("it is {}: expected a regular file", name(kind))));
    }
    if metadata.len() > most.0 { Err(too_long(most)) } else { Ok(metadata.len()) }
}

fn name(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

fn too_long(most: Most) -> io::Error {
    wrong(format!("it is too long: expected {} MiB at the most", most.0 >> 20))
}

fn wrong(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_that_are_not_too_long_are_read_and_none_is_waited_for() {
        let directory = std::env::temp_dir().join(format!("lambda-policy-content-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let sized = |name: &str, length: u64| {
            File::create(directory.join(name)).unwrap().set_len(length).unwrap();
            name.to_owned()
        };
        fs::write(directory.join("text"), "text\n").unwrap();
        std::os::unix::fs::symlink("text", directory.join("link")).unwrap();
        fs::write(directory.join("bytes"), [0xff]).unwrap();
        let pipe = directory.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(directory.join("socket")).unwrap();
        let regular = ": expected a regular file";
        for (file, most, expected) in [
            ("text", Most::NAMED, Ok("text\n")),
            ("link", Most::NAMED, Ok("text\n")),
            // Of some file systems the length is not known before the content.
            ("/proc/sys/kernel/ostype", Most::NAMED, Ok("Linux\n")),
            ("bytes", Most::NAMED, Err("it is not UTF-8".to_owned())),
            ("none", Most::NAMED, Err("No such file or directory (os error 2)".to_owned())),
            ("pipe", Most::CONFIGURATION, Err(format!("it is a pipe{regular}"))),
            ("socket", Most::NAMED, Err(format!("it is a socket{regular}"))),
            (".", Most::NAMED, Err(format!("it is a directory{regular}"))),
            ("/dev/zero", Most::NAMED, Err(format!("it is a device{regular}"))),
            (&sized("long", (1 << 20) + 1), Most::NAMED, Err("it is too long: expected 1 MiB at the most".to_owned())),
            (
                &sized("vast", 3 << 30),
                Most::CONFIGURATION,
                Err("it is too long: expected 64 MiB at the most".to_owned()),
            ),
        ] {
            if file.starts_with("/proc") && !Path::new(file).exists() {
                continue;
            }
            let found = read_text(&directory.join(file), most).map_err(|error| error.to_string());
            assert_eq!(found.as_ref().map(|text| text.as_str()), expected.as_ref().copied(), "{file}");
        }
        assert_eq!(read(&directory.join(sized("full", 1 << 20)), Most::NAMED).unwrap().len(), 1 << 20);
        // A pipe that takes a file's place between the two looks keeps nobody waiting either.
        assert!(open(&pipe).is_ok_and(|pipe| fits(&pipe.metadata().unwrap(), Most::NAMED).is_err()));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_has_no_end_is_read_no_further_than_it_may_be() {
        // Its length is said to be nothing.
        let kernel = Path::new("/proc/kallsyms");
        if fs::metadata(kernel).is_ok_and(|metadata| metadata.len() == 0) {
            let found = read(kernel, Most(1000)).map_err(|error| error.kind());
            assert_eq!(found.unwrap_err(), io::ErrorKind::InvalidData);
        }
    }
}
