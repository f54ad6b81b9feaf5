// SPDX-License-Identifier: Apache-2.0

// The first process of a machine or of a pod: it waits until it is told to end, and for orphans.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGINT, syscall.SIGTERM)
	for {
		reap()
		if <-signals != syscall.SIGCHLD {
			return
		}
	}
}

// reap takes the status of every child that has ended; one signal may stand for several of them.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err != syscall.EINTR && (err != nil || pid == 0) {
			return
		}
	}
}
