// Recipes of Curator and plain clients while leaders are killed by whoever writes to our input.
// usage: Kills SERVERS
//   begin SERVERS   clients of these servers only, which are going to survive; answers 'ready'
//   end             ends them; answers with a line of figures
//   finish          ends everything, says what was wrong, and exits non-zero if anything was

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryNTimes;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

public final class Kills {
    static final int TIMEOUT_MS = 30_000;
    static final Queue<String> WRONG = new ConcurrentLinkedQueue<>();

    /** A mutex that tells its znode; the zxid of its creation is a fencing token. */
    static final class Fenced extends InterProcessMutex {
        private final CuratorFramework client;

        Fenced(CuratorFramework client, String path) {
            super(client, path);
            this.client = client;
        }

        /** The token of this thread's hold; 0 if the znode is gone. */
        long token() throws Exception {
            Stat stat = client.checkExists().forPath(getLockPath());
            return stat == null ? 0 : stat.getCzxid();
        }
    }

    static CuratorFramework client(String servers, Map<String, AtomicInteger> events)
            throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.builder().connectString(servers)
                .sessionTimeoutMs(TIMEOUT_MS).connectionTimeoutMs(15_000)
                .retryPolicy(new RetryNTimes(200, 100)).build();
        client.getConnectionStateListenable().addListener((from, state) -> {
            count(events, "curator " + state);
            if (state.name().equals("LOST")) {
                WRONG.add("a session of Curator is lost");
            }
        });
        client.start();
        if (!client.blockUntilConnected(60, TimeUnit.SECONDS)) {
            throw new AssertionError("no connection to " + servers);
        }
        return client;
    }

    static void count(Map<String, AtomicInteger> events, String name) {
        events.computeIfAbsent(name, key -> new AtomicInteger()).incrementAndGet();
    }

    /** Clients that know all servers and live through all kills: locks, a leader, a counter. */
    static final class Whole {
        final Map<String, AtomicInteger> events = new ConcurrentHashMap<>();
        final AtomicBoolean stop = new AtomicBoolean();
        final AtomicInteger inside = new AtomicInteger();
        final AtomicInteger held = new AtomicInteger();
        final AtomicInteger added = new AtomicInteger();
        final AtomicInteger unknown = new AtomicInteger();
        final AtomicInteger broken = new AtomicInteger();
        final AtomicLong latest = new AtomicLong();
        final List<CuratorFramework> clients = new ArrayList<>();
        final List<LeaderLatch> latches = new ArrayList<>();
        final List<Thread> threads = new ArrayList<>();
        final AtomicInteger led = new AtomicInteger();

        Whole(String servers) throws Exception {
            for (int number = 0; number < 2; number++) {
                CuratorFramework client = client(servers, events);
                clients.add(client);
                LeaderLatch latch = new LeaderLatch(client, "/kills/leader", "" + number);
                latch.start();
                latches.add(latch);
                thread(() -> lock(new Fenced(client, "/kills/mutex")));
                thread(() -> add(client));
            }
            thread(this::look);
        }

        void thread(Runnable work) {
            Thread thread = new Thread(work);
            thread.setDaemon(true);
            thread.start();
            threads.add(thread);
        }

        void lock(Fenced mutex) {
            while (!stop.get()) {
                try {
                    mutex.acquire();
                } catch (Exception error) {
                    broken.incrementAndGet();
                    continue;
                }
                if (inside.incrementAndGet() != 1) {
                    WRONG.add("two hold the mutex");
                }
                try {
                    long token = mutex.token();
                    if (token <= latest.getAndSet(token)) {
                        WRONG.add("the fencing token " + token + " is not higher than the last");
                    }
                    Thread.sleep(2);
                    held.incrementAndGet();
                } catch (Exception error) {
                    broken.incrementAndGet();
                }
                inside.decrementAndGet();
                try {
                    mutex.release();
                } catch (Exception error) {
                    broken.incrementAndGet();
                }
            }
        }

        void add(CuratorFramework client) {
            DistributedAtomicLong counter =
                    new DistributedAtomicLong(client, "/kills/counter", new RetryNTimes(50, 20));
            while (!stop.get()) {
                try {
                    if (counter.increment().succeeded()) {
                        added.incrementAndGet();
                    }
                    Thread.sleep(5);
                } catch (Exception error) {
                    unknown.incrementAndGet();
                }
            }
        }

        /** There is one leader at most; it hands over from time to time. */
        void look() {
            for (int round = 1; !stop.get(); round++) {
                try {
                    if (latches.get(0).hasLeadership() && latches.get(1).hasLeadership()
                            && latches.get(0).hasLeadership()) {
                        WRONG.add("two lead");
                    }
                    if (round % 200 == 0) {
                        handOver();
                    }
                    Thread.sleep(5);
                } catch (Exception error) {
                    broken.incrementAndGet();
                }
            }
        }

        void handOver() throws Exception {
            for (int number = 0; number < 2; number++) {
                LeaderLatch latch = latches.get(number);
                if (latch.hasLeadership()) {
                    led.incrementAndGet();
                    latches.set(number,
                            new LeaderLatch(clients.get(number), "/kills/leader", "" + number));
                    latch.close();
                    latches.get(number).start();
                    return;
                }
            }
        }

        void finish() throws Exception {
            stop.set(true);
            for (Thread thread : threads) {
                thread.join(60_000);
                if (thread.isAlive()) {
                    WRONG.add("a thread hangs");
                    for (StackTraceElement element : thread.getStackTrace()) {
                        System.out.println("    at " + element);
                    }
                }
            }
            clients.get(0).sync().forPath("/kills/counter");
            // An increment whose outcome was not told may have been tried again.
            long value = new DistributedAtomicLong(clients.get(0), "/kills/counter",
                    new RetryNTimes(50, 20)).get().postValue();
            if (value < added.get()) {
                WRONG.add("the counter is " + value + " after " + added + " increments");
            }
            if (held.get() == 0 || added.get() == 0 || led.get() == 0) {
                WRONG.add("nothing was done");
            }
            System.out.println("whole: mutex held " + held + " times, counter " + value + " after "
                    + added + " increments and " + unknown + " unknown, leader changed " + led
                    + " times, " + broken + " calls failed; " + events);
            for (LeaderLatch latch : latches) {
                latch.close();
            }
            for (CuratorFramework client : clients) {
                client.close();
            }
        }
    }

    /** Clients of servers that survive one kill. */
    static final class Survivors {
        final Map<String, AtomicInteger> events = new ConcurrentHashMap<>();
        final AtomicBoolean stop = new AtomicBoolean();
        final AtomicLong gap = new AtomicLong();
        final AtomicInteger sets = new AtomicInteger();
        final AtomicInteger failures = new AtomicInteger();
        final List<Thread> threads = new ArrayList<>();
        final CuratorFramework holder;
        final CuratorFramework rival;
        final String path;
        final Fenced mine;
        final long token;

        Survivors(String servers, int round) throws Exception {
            holder = client(servers, events);
            rival = client(servers, events);
            path = "/kills/held-" + round;
            mine = new Fenced(holder, path);
            mine.acquire();
            token = mine.token();
            CountDownLatch begun = new CountDownLatch(servers.split(",").length);
            for (String server : servers.split(",")) {
                Thread thread = new Thread(() -> write(server, begun));
                thread.start();
                threads.add(thread);
            }
            if (!begun.await(60, TimeUnit.SECONDS)) {
                throw new AssertionError("no writes at " + servers);
            }
        }

        /** An unmodified Java client that writes without pause. */
        void write(String server, CountDownLatch begun) {
            CountDownLatch connected = new CountDownLatch(1);
            try (ZooKeeper keeper = new ZooKeeper(server, TIMEOUT_MS, event -> {
                if (event.getState() == KeeperState.SyncConnected) {
                    connected.countDown();
                } else if (!stop.get()) {
                    count(events, "java " + event.getState());
                }
                if (event.getState() == KeeperState.Expired) {
                    WRONG.add("a session of the Java client is lost");
                }
            })) {
                connected.await();
                String path = keeper.create("/kills/written-", new byte[0], Ids.OPEN_ACL_UNSAFE,
                        CreateMode.EPHEMERAL_SEQUENTIAL);
                int version = 0;
                long last = System.nanoTime();
                while (!stop.get()) {
                    try {
                        int next = keeper.setData(path, new byte[100], -1).getVersion();
                        if (next <= version) {
                            WRONG.add("version " + next + " after " + version);
                        }
                        version = next;
                        long now = System.nanoTime();
                        long pause = now - last;
                        gap.accumulateAndGet(pause, Math::max);
                        last = now;
                        if (sets.incrementAndGet() % 20 == 0) {
                            begun.countDown();
                        }
                    } catch (KeeperException.ConnectionLossException error) {
                        failures.incrementAndGet();
                    }
                }
            } catch (Exception error) {
                WRONG.add("a Java client: " + error);
            }
        }

        void finish() throws Exception {
            if (mine.token() != token) {
                WRONG.add("a lock that was held is lost");
            }
            Fenced theirs = new Fenced(rival, path);
            if (theirs.acquire(100, TimeUnit.MILLISECONDS)) {
                WRONG.add("a lock that is held was given to another");
            }
            mine.release();
            stop.set(true);
            for (Thread thread : threads) {
                thread.join(60_000);
            }
            holder.close();
            rival.close();
            System.out.printf("survivors: java gap %.1f ms, %d sets, %d failed; %s%n",
                    gap.get() / 1e6, sets.get(), failures.get(), events);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Whole whole = new Whole(arguments[0]);
        Survivors survivors = null;
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        System.out.println("ready");
        int round = 0;
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            if (line.startsWith("begin ")) {
                survivors = new Survivors(line.substring(6), ++round);
                System.out.println("ready");
            } else if (line.equals("end")) {
                survivors.finish();
            } else {
                break;
            }
        }
        whole.finish();
        for (String what : WRONG) {
            System.out.println("WRONG: " + what);
        }
        System.exit(WRONG.isEmpty() ? 0 : 1);
    }
}
