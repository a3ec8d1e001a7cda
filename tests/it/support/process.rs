//! Programs that run for as long as a test needs them.

use std::process::{Child, Command, ExitStatus, Stdio};

/// A running program. It is killed when it is dropped, and also when the test process ends without dropping anything.
pub struct Process {
    name: String,
    child: Child,
    /// Reads from a pipe that nobody writes to, until the test process and with it the pipe is gone; then it kills.
    guardian: Child,
}

impl Process {
    /// Starts it. `remedy` is what to do if the program does not exist.
    #[track_caller]
    pub fn start(command: &mut Command, remedy: &str) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{name}: {error}; {remedy}"));
        let script = format!("trap '' INT; read -r line; kill -KILL {}", child.id());
        let guardian = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { name, child, guardian }
    }

    /// Its number, under which `/proc` knows it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `STOP`.
    #[track_caller]
    pub fn signal(&self, signal: &str) {
        // The shell has `kill` built in, whatever is installed.
        let script = format!("kill -{signal} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(status.success(), "{script}: {status}; it is {}", self.name);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Kills it, as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        // The guardian goes first: it must never outlive the process id that it knows.
        let _ = self.guardian.kill();
        let _ = self.guardian.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
