package main

import (
	"io"
	"net"
	"sync"
)

// proxy passes connections on to a server, until it is cut.
type proxy struct {
	listener net.Listener
	server   string
	guard    sync.Mutex
	broken   bool
	open     []net.Conn
}

func newProxy(server string) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	proxy := &proxy{listener: listener, server: server}
	go proxy.serve()
	return proxy, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.guard.Lock()
		server, err := net.Dial("tcp", p.server)
		if err != nil || p.broken {
			client.Close()
			if err == nil {
				server.Close()
			}
		} else {
			p.open = append(p.open, client, server)
			go pass(client, server)
			go pass(server, client)
		}
		p.guard.Unlock()
	}
}

func pass(from, to net.Conn) {
	io.Copy(to, from)
	to.Close()
}

func (p *proxy) cut() {
	p.guard.Lock()
	defer p.guard.Unlock()
	p.broken = true
	for _, conn := range p.open {
		conn.Close()
	}
	p.open = nil
}

func (p *proxy) mend() {
	p.guard.Lock()
	defer p.guard.Unlock()
	p.broken = false
}

func (p *proxy) close() {
	p.listener.Close()
	p.cut()
}
