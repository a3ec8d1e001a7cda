//! How much memory this process may use: the machine's, or less if it runs in a container or another control group.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of memory that this process may use at most, or `None` where the system does not say (anywhere but on Linux).
///
/// The smallest of the machine's memory and the limits of the process's control group and the groups around it. Swap does
/// not count. Reads a few small files: call it once, not per request.
pub fn total() -> Option<u64> {
    total_under(Path::new("/"))
}

fn total_under(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| limit_files(root, line)).filter_map(|file| limit(&file));
    limits.chain(installed(root)).min()
}

/// The machine's memory: `MemTotal:  8130644 kB`.
fn installed(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let amount = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    amount.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files in which one line of `/proc/self/cgroup` says that a limit may be: of the group itself, and of all groups
/// around it. Inside a container, the path may be the host's, which is not visible; its last ancestor, the root of what is
/// mounted, is the container then.
fn limit_files(root: &Path, line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        list if list.split(',').any(|controller| controller == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    groups.map(|group| root.join(mount).join(group).join(file)).collect()
}

/// A number of bytes, and none for `max` or a file that is not there. Version 1 writes a huge number if nothing is limited,
/// which is never the smallest.
fn limit(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system with these files, and what comes out of it.
    fn total_with(files: &[(&str, &str)]) -> Option<u64> {
        let root =
            std::env::temp_dir().join(format!("fanfare-memory-{}-{}", std::process::id(), rand::random::<u64>()));
        fs::create_dir_all(&root).unwrap();
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let total = total_under(&root);
        fs::remove_dir_all(&root).unwrap();
        total
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        2000 kB\nMemFree:         1000 kB\n");

    #[test]
    fn the_machines_memory_counts_where_nothing_limits_it() {
        assert_eq!(total_with(&[MACHINE]), Some(2_048_000));
        let unlimited = [MACHINE, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")];
        assert_eq!(total_with(&unlimited), Some(2_048_000));
        assert_eq!(total_with(&[]), None);
        assert_eq!(total_with(&[("proc/meminfo", "MemTotal: many\n")]), None);
    }

    #[test]
    fn the_limit_of_a_container_counts() {
        let v2 = [MACHINE, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "1000000\n")];
        assert_eq!(total_with(&v2), Some(1_000_000));
        let v1 = [
            MACHINE,
            ("proc/self/cgroup", "9:cpu,cpuacct:/docker/abc\n8:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n"),
        ];
        assert_eq!(total_with(&v1), Some(1_000_000));
    }

    #[test]
    fn the_smallest_limit_of_the_groups_around_the_process_counts() {
        let files = [
            MACHINE,
            ("proc/self/cgroup", "0::/system.slice/fanfare.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "900000\n"),
            ("sys/fs/cgroup/system.slice/fanfare.service/memory.max", "max\n"),
        ];
        assert_eq!(total_with(&files), Some(900_000));
    }

    #[test]
    fn version_1_writes_a_huge_number_for_no_limit() {
        let files = [
            MACHINE,
            ("proc/self/cgroup", "8:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(total_with(&files), Some(2_048_000));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_some_memory() {
        assert!(total().is_some_and(|bytes| bytes > 16 << 20), "{:?}", total());
    }
}
