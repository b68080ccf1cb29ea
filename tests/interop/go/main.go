// What the go-zookeeper client can do, against the server whose host:port is the argument.
// Prints a line per check and 'go: N passed, N failed'; exits non-zero when one failed.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

const patience = 10 * time.Second

var open = zk.WorldACL(zk.PermAll)

type check struct {
	name string
	run  func(server, path string) error
}

func main() {
	server := os.Args[1]
	checks := []check{
		{"create read write delete", nodes},
		{"errors", failures},
		{"sequential and ephemeral", sequential},
		{"watches", watches},
		{"watches survive a reconnect", reconnect},
		{"containers and ttl nodes", containers},
		{"transactions", transactions},
		{"access lists", accessLists},
		{"locks", locks},
		{"pipelining", pipelining},
		{"sync and large data", syncLarge},
		{"four-letter words", words},
	}
	failed := 0
	for _, check := range checks {
		path := "/go-" + strings.ReplaceAll(check.name, " ", "-")
		if err := check.run(server, path); err != nil {
			failed++
			fmt.Printf("FAILED %s: %v\n", check.name, err)
		} else {
			fmt.Printf("ok %s\n", check.name)
		}
	}
	fmt.Printf("go: %d passed, %d failed\n", len(checks)-failed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

type quiet struct{}

func (quiet) Printf(string, ...interface{}) {}

func connect(server string) (*zk.Conn, error) {
	conn, events, err := zk.Connect([]string{server}, patience, zk.WithLogger(quiet{}))
	if err != nil {
		return nil, err
	}
	deadline := time.After(patience)
	for {
		select {
		case event := <-events:
			if event.State == zk.StateHasSession {
				return conn, nil
			}
		case <-deadline:
			conn.Close()
			return nil, errors.New("no session")
		}
	}
}

// with runs a check with one connection.
func with(server string, run func(conn *zk.Conn) error) error {
	conn, err := connect(server)
	if err != nil {
		return err
	}
	defer conn.Close()
	return run(conn)
}

func same(what string, expected, found interface{}) error {
	if fmt.Sprint(expected) != fmt.Sprint(found) {
		return fmt.Errorf("%s: expected %v, found %v", what, expected, found)
	}
	return nil
}

func expect(events <-chan zk.Event, kind zk.EventType, path string) error {
	select {
	case event := <-events:
		return same("event", fmt.Sprint(kind, path), fmt.Sprint(event.Type, event.Path))
	case <-time.After(patience):
		return fmt.Errorf("no event %v on %s", kind, path)
	}
}

func gone(conn *zk.Conn, path string) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		exists, _, err := conn.Exists(path)
		if err != nil || !exists {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("%s is still there", path)
}

func nodes(server, path string) error {
	return with(server, func(conn *zk.Conn) error {
		made, err := conn.Create(path, []byte("one"), 0, open)
		if err != nil {
			return err
		}
		stat, err := conn.Set(path, []byte("two"), 0)
		if err != nil {
			return err
		}
		data, read, err := conn.Get(path)
		if err != nil {
			return err
		}
		for _, child := range []string{"b", "a", "c"} {
			if _, err := conn.Create(path+"/"+child, nil, 0, open); err != nil {
				return err
			}
		}
		children, parent, err := conn.Children(path)
		if err != nil {
			return err
		}
		sort.Strings(children)
		for _, child := range children {
			if err := conn.Delete(path+"/"+child, 0); err != nil {
				return err
			}
		}
		return errors.Join(
			same("path", path, made),
			same("version", 1, stat.Version),
			same("data", "two", string(data)),
			same("mzxid", stat.Mzxid, read.Mzxid),
			same("data length", 3, read.DataLength),
			same("children", "[a b c]", children),
			same("cversion", 3, parent.Cversion),
			conn.Delete(path, -1),
		)
	})
}

func failures(server, path string) error {
	return with(server, func(conn *zk.Conn) error {
		if _, err := conn.Create(path+"/a", nil, 0, open); err != zk.ErrNoNode {
			return same("create without a parent", zk.ErrNoNode, err)
		}
		if _, err := conn.Create(path, nil, 0, open); err != nil {
			return err
		}
		_, twice := conn.Create(path, nil, 0, open)
		_, noList := conn.Create(path+"/b", nil, 0, nil)
		_, version := conn.Set(path, nil, 7)
		_, err := conn.Create(path+"/a", nil, 0, open)
		_, _, missing := conn.Get(path + "/missing")
		return errors.Join(
			err,
			same("create twice", zk.ErrNodeExists, twice),
			same("create without a list", zk.ErrInvalidACL, noList),
			same("set of another version", zk.ErrBadVersion, version),
			same("delete of a parent", zk.ErrNotEmpty, conn.Delete(path, -1)),
			same("get of nothing", zk.ErrNoNode, missing),
			conn.Delete(path+"/a", -1),
		)
	})
}

func sequential(server, path string) error {
	other, err := connect(server)
	if err != nil {
		return err
	}
	err = with(server, func(conn *zk.Conn) error {
		if _, err := conn.Create(path, nil, 0, open); err != nil {
			return err
		}
		first, _ := conn.Create(path+"/s-", nil, zk.FlagSequence, open)
		second, _ := conn.Create(path+"/", nil, zk.FlagSequence, open)
		mine, _ := other.Create(path+"/e", nil, zk.FlagEphemeral, open)
		protected, err := other.CreateProtectedEphemeralSequential(path+"/p-", nil, open)
		if err != nil {
			return err
		}
		_, stat, err := conn.Get(mine)
		if err != nil {
			return err
		}
		_, child := conn.Create(mine+"/x", nil, 0, open)
		return errors.Join(
			same("first", path+"/s-0000000000", first),
			same("second", path+"/0000000001", second),
			same("owner", other.SessionID(), stat.EphemeralOwner),
			same("suffix", true, strings.HasSuffix(protected, "p-0000000003")),
			same("child of an ephemeral", zk.ErrNoChildrenForEphemerals, child),
		)
	})
	other.Close()
	return errors.Join(err, with(server, func(conn *zk.Conn) error {
		return gone(conn, path+"/e")
	}))
}

func watches(server, path string) error {
	other, err := connect(server)
	if err != nil {
		return err
	}
	defer other.Close()
	return with(server, func(conn *zk.Conn) error {
		_, _, created, err := conn.ExistsW(path)
		if err != nil {
			return err
		}
		if _, err := other.Create(path, nil, 0, open); err != nil {
			return err
		}
		_, _, changed, err := conn.GetW(path)
		if err != nil {
			return err
		}
		_, _, children, err := conn.ChildrenW(path)
		if err != nil {
			return err
		}
		other.Set(path, []byte("x"), -1)
		other.Create(path+"/child", nil, 0, open)
		_, _, deleted, err := conn.GetW(path + "/child")
		if err != nil {
			return err
		}
		return errors.Join(
			expect(created, zk.EventNodeCreated, path),
			expect(changed, zk.EventNodeDataChanged, path),
			expect(children, zk.EventNodeChildrenChanged, path),
			other.Delete(path+"/child", -1),
			expect(deleted, zk.EventNodeDeleted, path+"/child"),
		)
	})
}

// reconnect stands a proxy between client and server, so that a connection can break.
func reconnect(server, path string) error {
	proxy, err := newProxy(server)
	if err != nil {
		return err
	}
	defer proxy.close()
	return with(server, func(other *zk.Conn) error {
		if _, err := other.Create(path, nil, 0, open); err != nil {
			return err
		}
		return with(proxy.address(), func(conn *zk.Conn) error {
			session := conn.SessionID()
			_, _, changed, err := conn.GetW(path)
			if err != nil {
				return err
			}
			_, _, missed, err := conn.ExistsW(path + "/child")
			if err != nil {
				return err
			}
			proxy.cut()
			if _, err := other.Create(path+"/child", nil, 0, open); err != nil {
				return err
			}
			proxy.mend()
			if err := expect(missed, zk.EventNodeCreated, path+"/child"); err != nil {
				return err
			}
			other.Set(path, []byte("x"), -1)
			return errors.Join(
				expect(changed, zk.EventNodeDataChanged, path),
				same("session", session, conn.SessionID()),
			)
		})
	})
}

func containers(server, path string) error {
	return with(server, func(conn *zk.Conn) error {
		if _, err := conn.CreateContainer(path, nil, zk.FlagContainer, open); err != nil {
			return err
		}
		timed, err := conn.CreateTTL(path+"/t", nil, zk.FlagTTL, open, 100*time.Millisecond)
		if err != nil {
			return err
		}
		return errors.Join(gone(conn, timed), gone(conn, path))
	})
}

func transactions(server, path string) error {
	return with(server, func(conn *zk.Conn) error {
		results, err := conn.Multi(
			&zk.CreateRequest{Path: path, Data: []byte("a"), Acl: open},
			&zk.SetDataRequest{Path: path, Data: []byte("b"), Version: 0},
			&zk.CheckVersionRequest{Path: path, Version: 1},
			&zk.CreateRequest{Path: path + "/x", Acl: open, Flags: zk.FlagSequence},
		)
		if err != nil {
			return err
		}
		failed, err := conn.Multi(
			&zk.DeleteRequest{Path: path + "/x0000000000", Version: -1},
			&zk.SetDataRequest{Path: path, Data: []byte("c"), Version: 9},
		)
		if err == nil {
			return errors.New("a failing transaction succeeded")
		}
		kept, _, _ := conn.Exists(path + "/x0000000000")
		return errors.Join(
			same("created", path+"/x0000000000", results[3].String),
			same("version", 1, results[1].Stat.Version),
			same("second error", zk.ErrBadVersion, failed[1].Error),
			same("the first half undone", true, kept),
		)
	})
}

func accessLists(server, path string) error {
	return with(server, func(owner *zk.Conn) error {
		if err := owner.AddAuth("digest", []byte("alice:secret")); err != nil {
			return err
		}
		digest := zk.DigestACL(zk.PermAll, "alice", "secret")
		if _, err := owner.Create(path, []byte("mine"), 0, digest); err != nil {
			return err
		}
		list, _, err := owner.GetACL(path)
		if err != nil {
			return err
		}
		return with(server, func(other *zk.Conn) error {
			_, _, denied := other.Get(path)
			_, err := owner.SetACL(path, zk.WorldACL(zk.PermRead), 0)
			data, _, allowed := other.Get(path)
			_, write := other.Set(path, nil, -1)
			return errors.Join(
				err, allowed,
				same("list", digest, list),
				same("a stranger's read", zk.ErrNoAuth, denied),
				same("everybody's read", "mine", string(data)),
				same("a stranger's write", zk.ErrNoAuth, write),
			)
		})
	})
}

func locks(server, path string) error {
	var together sync.WaitGroup
	var guard sync.Mutex
	held, entries := 0, 0
	problems := make(chan error, 20)
	for worker := 0; worker < 4; worker++ {
		together.Add(1)
		go func() {
			defer together.Done()
			problems <- with(server, func(conn *zk.Conn) error {
				lock := zk.NewLock(conn, path, open)
				for round := 0; round < 5; round++ {
					if err := lock.Lock(); err != nil {
						return err
					}
					guard.Lock()
					held++
					entries++
					alone := held == 1
					guard.Unlock()
					if !alone {
						return errors.New("two holders")
					}
					guard.Lock()
					held--
					guard.Unlock()
					if err := lock.Unlock(); err != nil {
						return err
					}
				}
				return nil
			})
		}()
	}
	together.Wait()
	close(problems)
	for problem := range problems {
		if problem != nil {
			return problem
		}
	}
	return same("entries", 20, entries)
}

func pipelining(server, path string) error {
	return with(server, func(conn *zk.Conn) error {
		if _, err := conn.Create(path, nil, 0, open); err != nil {
			return err
		}
		var together sync.WaitGroup
		problems := make(chan error, 500)
		for worker := 0; worker < 50; worker++ {
			together.Add(1)
			go func(child string) {
				defer together.Done()
				for round := 0; round < 10; round++ {
					_, err := conn.Create(child, []byte(child), 0, open)
					data, _, read := conn.Get(child)
					problems <- errors.Join(err, read, same("data", child, string(data)),
						conn.Delete(child, 0))
				}
			}(fmt.Sprintf("%s/%d", path, worker))
		}
		together.Wait()
		close(problems)
		for problem := range problems {
			if problem != nil {
				return problem
			}
		}
		_, stat, err := conn.Get(path)
		if err != nil {
			return err
		}
		return same("cversion", 1000, stat.Cversion)
	})
}

func syncLarge(server, path string) error {
	return with(server, func(conn *zk.Conn) error {
		large := bytes.Repeat([]byte("0123456789"), 100_000)
		if _, err := conn.Create(path, large, 0, open); err != nil {
			return err
		}
		synced, err := conn.Sync(path)
		if err != nil {
			return err
		}
		data, _, err := conn.Get(path)
		if err != nil {
			return err
		}
		return errors.Join(same("path", path, synced), same("data", true, bytes.Equal(large, data)))
	})
}

func words(server, path string) error {
	return with(server, func(conn *zk.Conn) error {
		if answers := zk.FLWRuok([]string{server}, patience); !answers[0] {
			return errors.New("ruok: no")
		}
		// The client's own reading of `cons` is older than the answer's form.
		raw, err := net.DialTimeout("tcp", server, patience)
		if err != nil {
			return err
		}
		defer raw.Close()
		if _, err := raw.Write([]byte("cons")); err != nil {
			return err
		}
		answer, err := io.ReadAll(raw)
		if err != nil {
			return err
		}
		if strings.Contains(string(answer), fmt.Sprintf("sid=0x%x,", conn.SessionID())) {
			return nil
		}
		return errors.New("cons does not name our session")
	})
}
