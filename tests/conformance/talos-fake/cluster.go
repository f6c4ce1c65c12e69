package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/siderolabs/talos/pkg/machinery/api/common"
	"github.com/siderolabs/talos/pkg/machinery/api/machine"
	"google.golang.org/grpc"
)

// Several fakes are one cluster when they share a file with the members of its etcd (--etcd). A control plane that
// is configured joins as soon as there is one, as a real one does by itself; nothing else of etcd is modelled.

func memberIDOf(hostname string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(hostname))
	return h.Sum64() | 1<<63 // as long as real ones
}

// members reads the shared file and, if change is given, writes what it returns; other processes wait.
func (n *node) members(change func([]string) []string) []string {
	f, err := os.OpenFile(n.o.etcd, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		emit("etcd-file", "error", err.Error())
		return nil
	}
	defer f.Close() //nolint:errcheck // the lock goes with it
	if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		emit("etcd-file", "error", err.Error())
		return nil
	}
	var names []string
	_ = json.NewDecoder(f).Decode(&names) // a new file is empty
	if change == nil {
		return names
	}
	names = change(names)
	if err = f.Truncate(0); err == nil {
		if _, err = f.Seek(0, 0); err == nil {
			err = json.NewEncoder(f).Encode(names)
		}
	}
	if err != nil {
		emit("etcd-file", "error", err.Error())
	}
	return names
}

// joinEtcd makes a configured control plane a member when there is an etcd to join; n.mu is held.
func (n *node) joinEtcd() {
	if n.o.etcd == "" || n.down || n.etcd || n.maintenance() {
		return
	}
	if !n.controlPlane() {
		n.publish() // whether a worker is ready hangs on the others
		return
	}
	if len(n.members(nil)) == 0 {
		return
	}
	n.members(func(names []string) []string { return append(names, n.o.hostname) })
	n.etcd = true
	n.publish()
	emit("joined")
}

// beginEtcd is the other way to become a member; n.mu is held. A real machine does not know of the others: told to
// begin, it begins a second etcd beside theirs. That must never be asked of it.
func (n *node) beginEtcd() {
	if n.o.etcd == "" {
		return
	}
	n.members(func(names []string) []string {
		if len(names) > 0 {
			emit("second-etcd", "beside", strings.Join(names, ","))
		}
		return append(names, n.o.hostname)
	})
}

func (n *node) leaveEtcd() { // n.mu is held
	if n.o.etcd != "" && n.etcd {
		n.members(func(names []string) []string {
			return slices.DeleteFunc(names, func(name string) bool { return name == n.o.hostname })
		})
	}
	n.etcd = false
}

// founded tells whether the cluster's API can be there.
func (n *node) founded() bool { return n.o.etcd == "" || len(n.members(nil)) > 0 }

// memberNames lists who is in etcd as this member sees it.
func (n *node) memberNames() []string {
	if n.o.etcd == "" {
		return []string{n.o.hostname}
	}
	return n.members(nil)
}

// loses tells whether the reply to a call that was carried out is to be lost.
func (n *node) loses(method string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	left, ok := n.lost[method]
	if !ok || left == 0 {
		return false
	}
	n.lost[method] = left - 1
	emit("lost", "method", method)
	n.dropConnections()
	return true
}

// ---- logs: two lines, and with follow one more for ever

func (s *machineServer) Logs(in *machine.LogsRequest, ss grpc.ServerStreamingServer[common.Data]) error {
	s.n.mu.Lock()
	_, known := s.n.services()[in.GetId()]
	s.n.mu.Unlock()
	if !known {
		return status.Errorf(codes.Unknown, "log %q was not registered", in.GetId())
	}
	return lines(in.GetId(), in.GetFollow(), ss)
}

func (s *machineServer) Dmesg(in *machine.DmesgRequest, ss grpc.ServerStreamingServer[common.Data]) error {
	return lines("kern", in.GetFollow(), ss)
}

func lines(of string, follow bool, ss grpc.ServerStreamingServer[common.Data]) error {
	for i := range 2 {
		if err := ss.Send(&common.Data{Bytes: fmt.Appendf(nil, "%s: line %d\n", of, i+1)}); err != nil {
			return err
		}
	}
	if follow {
		<-ss.Context().Done()
	}
	return nil
}
