//! The binary as a child process: arguments, environment, and every line that it prints.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use super::DEADLINE;

/// An invocation that has not begun.
pub struct Fanfare {
    command: Command,
    shown: String,
    input: String,
}

/// The binary with these arguments, and with nothing in its environment but where programs are.
pub fn fanfare(args: &[&str]) -> Fanfare {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.args(args);
    Fanfare::new(command, format!("fanfare {}", args.join(" ")))
}

impl Fanfare {
    /// The same for a line that somebody would type: it finds `fanfare` where it was built.
    pub fn typed(line: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {line}")]);
        Self::new(command, line.to_owned())
    }

    /// The same for a process that may have only this many open files.
    pub fn with_open_files(limit: u32, args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_fanfare")]).args(args);
        Self::new(command, format!("ulimit -n {limit}; fanfare {}", args.join(" ")))
    }

    /// `fanfare check` with so few open files that their number is never what it warns of, whatever the machine allows.
    pub fn check(args: &[&str]) -> Self {
        Self::with_open_files(128, &[&["check"], args].concat())
    }

    fn new(mut command: Command, shown: String) -> Self {
        let built = Path::new(env!("CARGO_BIN_EXE_fanfare")).parent().unwrap();
        let path = format!("{}:{}", built.display(), std::env::var("PATH").unwrap());
        command.env_clear().env("PATH", path);
        Self { command, shown, input: String::new() }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn envs(self, pairs: &[(&str, &str)]) -> Self {
        pairs.iter().fold(self, |fanfare, (name, value)| fanfare.env(name, value))
    }

    /// What comes from standard input.
    pub fn input(mut self, text: &str) -> Self {
        text.clone_into(&mut self.input);
        self
    }

    /// Starts the process and reads along.
    #[track_caller]
    pub fn start(mut self) -> Process {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.shown));
        // A process that ends without reading its input is none of our business.
        let _ = child.stdin.take().unwrap().write_all(self.input.as_bytes());
        let stdout = Stream::read(child.stdout.take().unwrap());
        let stderr = Stream::read(child.stderr.take().unwrap());
        Process { child, shown: self.shown, stdout, stderr }
    }

    /// Runs the process to its end.
    #[track_caller]
    pub fn run(self) -> Output {
        self.start().wait()
    }
}

/// A process that runs until it ends or the test does.
pub struct Process {
    child: Child,
    shown: String,
    stdout: Stream,
    stderr: Stream,
}

impl Process {
    /// The next line of standard output that contains `text`; lines before it are passed over.
    #[track_caller]
    pub fn expect_out(&mut self, text: &str) -> String {
        let line = self.stdout.next(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("no line with {text:?} on standard output of {self}"))
    }

    /// The next line of standard error that contains `text`; lines before it are passed over.
    #[track_caller]
    pub fn expect_err(&mut self, text: &str) -> String {
        let line = self.stderr.next(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("no line with {text:?} on standard error of {self}"))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `TERM`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        // The shell has `kill` built in, whatever is installed.
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(status.success(), "kill -{name}: {status}; {self}");
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let ended = self.stdout.next(|_| false).is_none() && self.stderr.next(|_| false).is_none();
        assert!(ended && self.stdout.is_complete() && self.stderr.is_complete(), "still running: {self}");
        let status = self.child.wait().unwrap();
        Output { shown: self.shown.clone(), status, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`\n--- stdout\n{}--- stderr\n{}---", self.shown, self.stdout.text(), self.stderr.text())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process left behind.
pub struct Output {
    shown: String,
    status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// It did what it was asked to; its standard output.
    #[track_caller]
    pub fn succeeded(&self) -> &str {
        self.exited(0);
        &self.stdout
    }

    /// It failed with this code and printed no result; its standard error.
    #[track_caller]
    pub fn failed(&self, code: i32) -> &str {
        self.exited(code);
        assert_eq!(self.stdout, "", "{self}");
        &self.stderr
    }

    #[track_caller]
    pub fn exited(&self, code: i32) {
        assert_eq!(self.status.code(), Some(code), "exit code of {self}");
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shown, status, stdout, stderr } = self;
        write!(f, "`{shown}`, which ended with {status}\n--- stdout\n{stdout}--- stderr\n{stderr}---")
    }
}

/// One of the two streams, read by a thread of its own as fast as it comes.
struct Stream {
    shared: Arc<(Mutex<Lines>, Condvar)>,
    /// Lines that were waited for and found, or passed over.
    seen: usize,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    complete: bool,
}

impl Stream {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::<(Mutex<Lines>, Condvar)>::default();
        let writer = Arc::clone(&shared);
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut bytes = Vec::new();
            while pipe.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
                let line = String::from_utf8(std::mem::take(&mut bytes)).expect("output is UTF-8");
                writer.0.lock().unwrap().lines.push(line);
                writer.1.notify_all();
            }
            writer.0.lock().unwrap().complete = true;
            writer.1.notify_all();
        });
        Self { shared, seen: 0 }
    }

    /// The next line that fits; `None` if the stream ends without one, or time is up.
    fn next(&mut self, fits: impl Fn(&str) -> bool) -> Option<String> {
        let (deadline, (lines, changed)) = (Instant::now() + DEADLINE, &*self.shared);
        let mut lines = lines.lock().unwrap();
        loop {
            while let Some(line) = lines.lines.get(self.seen) {
                self.seen += 1;
                if fits(line) {
                    return Some(line.trim_end_matches('\n').to_owned());
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.complete || left.is_zero() {
                return None;
            }
            lines = changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    fn is_complete(&self) -> bool {
        self.shared.0.lock().unwrap().complete
    }

    fn text(&self) -> String {
        self.shared.0.lock().unwrap().lines.concat()
    }
}
