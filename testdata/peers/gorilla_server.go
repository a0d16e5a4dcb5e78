// A server on Go's gorilla/websocket and crypto/tls: see README.md.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// peer is a connection. The library allows one writer at a time.
type peer struct {
	socket *websocket.Conn
	lock   sync.Mutex
}

func (it *peer) send(kind int, message []byte) error {
	it.lock.Lock()
	defer it.lock.Unlock()
	return it.socket.WriteMessage(kind, message)
}

// repeat sends the message every interval, until done is closed.
func (it *peer) repeat(done chan struct{}, interval time.Duration, kind int, message []byte) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			if it.send(kind, message) != nil {
				return
			}
		}
	}
}

// members of the room.
type members struct {
	lock sync.Mutex
	all  map[*peer]bool
}

func (it *members) add(one *peer) {
	it.lock.Lock()
	defer it.lock.Unlock()
	it.all[one] = true
}

func (it *members) remove(one *peer) {
	it.lock.Lock()
	defer it.lock.Unlock()
	delete(it.all, one)
}

func (it *members) send(message []byte) {
	it.lock.Lock()
	defer it.lock.Unlock()
	for member := range it.all {
		// A member that is gone notices when it reads.
		_ = member.send(websocket.TextMessage, message)
	}
}

var (
	room     = members{all: map[*peer]bool{}}
	upgrader = websocket.Upgrader{}
)

func serve(socket *websocket.Conn, ping time.Duration) {
	defer socket.Close()
	self := &peer{socket: socket}
	done := make(chan struct{})
	defer close(done)
	defer room.remove(self)
	if ping > 0 {
		go self.repeat(done, ping, websocket.PingMessage, nil)
	}
	for {
		kind, message, err := socket.ReadMessage()
		if err != nil {
			return
		}
		words := strings.SplitN(string(message), " ", 3)
		count := 0
		if len(words) > 1 {
			count, _ = strconv.Atoi(words[1])
		}
		switch {
		case kind == websocket.TextMessage && words[0] == "burst":
			for n := 0; n < count && err == nil; n++ {
				err = self.send(kind, message)
			}
		case kind == websocket.TextMessage && words[0] == "all":
			room.add(self)
			room.send(message)
		case kind == websocket.TextMessage && words[0] == "tick":
			go self.repeat(done, time.Duration(count)*time.Millisecond, kind, []byte("tick"))
		default:
			err = self.send(kind, message)
		}
		if err != nil {
			return
		}
	}
}

func main() {
	host, port := os.Args[1], os.Args[2]
	milliseconds, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	ping := time.Duration(milliseconds) * time.Millisecond
	http.HandleFunc("/", func(response http.ResponseWriter, request *http.Request) {
		if socket, err := upgrader.Upgrade(response, request, nil); err == nil {
			serve(socket, ping)
		}
	})
	listener, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	if len(os.Args) > 5 {
		log.Fatal(http.ServeTLS(listener, nil, os.Args[4], os.Args[5]))
	}
	log.Fatal(http.Serve(listener, nil))
}
