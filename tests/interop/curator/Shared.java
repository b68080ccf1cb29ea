// Counters, values, queues and caches.

import java.util.Map;
import java.util.Queue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.atomic.CachedAtomicLong;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicInteger;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicValue;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.cache.PathChildrenCache;
import org.apache.curator.framework.recipes.cache.TreeCache;
import org.apache.curator.framework.recipes.queue.DistributedDelayQueue;
import org.apache.curator.framework.recipes.queue.DistributedIdQueue;
import org.apache.curator.framework.recipes.queue.DistributedPriorityQueue;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.SharedValue;
import org.apache.curator.framework.recipes.shared.SharedValueListener;
import org.apache.curator.framework.recipes.shared.SharedValueReader;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryNTimes;

final class Shared {
    static void addTo(Map<String, Main.Recipe> recipes) {
        recipes.put("shared count", Shared::sharedCount);
        recipes.put("shared value", Shared::sharedValue);
        recipes.put("atomic long", Shared::atomicLong);
        recipes.put("atomic value", Shared::atomicValue);
        recipes.put("queue", Shared::queue);
        recipes.put("priority queue", Shared::priorityQueue);
        recipes.put("delay queue", Shared::delayQueue);
        recipes.put("queue with ids", Shared::idQueue);
        recipes.put("simple queue", Shared::simpleQueue);
        recipes.put("cache", Shared::cache);
        recipes.put("cache of a single node", Shared::nodeCache);
        recipes.put("cache of children", Shared::childrenCache);
        recipes.put("cache of a tree", Shared::treeCache);
    }

    static void sharedCount(Main.Env env, String path) throws Exception {
        try (SharedCount one = new SharedCount(env.one, path, 7);
                SharedCount other = new SharedCount(env.other, path, 0)) {
            one.start();
            other.start();
            Main.same(7, other.getCount(), "the initial count");
            Main.check(one.trySetCount(one.getVersionedValue(), 8), "set at its version");
            Main.eventually(() -> other.getCount() == 8, "the new count");
            one.setCount(9);
            Main.eventually(() -> other.getCount() == 9, "the newest count");
        }
    }

    static void sharedValue(Main.Env env, String path) throws Exception {
        BlockingQueue<String> seen = new LinkedBlockingQueue<>();
        try (SharedValue one = new SharedValue(env.one, path, "a".getBytes());
                SharedValue other = new SharedValue(env.other, path, "z".getBytes())) {
            other.getListenable().addListener(new SharedValueListener() {
                @Override
                public void valueHasChanged(SharedValueReader value, byte[] data) {
                    seen.add(new String(data));
                }

                @Override
                public void stateChanged(CuratorFramework client, ConnectionState state) {}
            });
            one.start();
            other.start();
            one.setValue("b".getBytes());
            Main.same("b", seen.poll(10, TimeUnit.SECONDS), "the value told");
        }
    }

    static void atomicLong(Main.Env env, String path) throws Exception {
        Future<?>[] workers = new Future<?>[4];
        for (int worker = 0; worker < workers.length; worker++) {
            DistributedAtomicLong counter = new DistributedAtomicLong(
                    worker % 2 == 0 ? env.one : env.other, path, new RetryNTimes(200, 1));
            workers[worker] = env.async(() -> {
                for (int round = 0; round < 15; round++) {
                    Main.check(counter.increment().succeeded(), "an increment");
                }
                return null;
            });
        }
        for (Future<?> worker : workers) {
            Main.get(worker);
        }
        DistributedAtomicLong counter =
                new DistributedAtomicLong(env.one, path, new RetryNTimes(5, 1));
        Main.same(60L, counter.get().postValue(), "the sum");
        Main.same(59L, counter.decrement().postValue(), "one less");
        Main.check(!counter.compareAndSet(1L, 2L).succeeded(), "set over another value");
        CachedAtomicLong cached = new CachedAtomicLong(counter, 10);
        Main.same(60L, cached.next().postValue(), "the first of a reserved run");
        DistributedAtomicInteger integer = new DistributedAtomicInteger(env.one, path + "-int",
                new RetryNTimes(5, 1));
        Main.same(5, integer.add(5).postValue(), "the integer");
    }

    static void atomicValue(Main.Env env, String path) throws Exception {
        DistributedAtomicValue value =
                new DistributedAtomicValue(env.one, path, new RetryNTimes(5, 1));
        Main.check(value.initialize("a".getBytes()), "the first value");
        Main.check(!value.initialize("b".getBytes()), "a second first value");
        Main.check(value.compareAndSet("a".getBytes(), "c".getBytes()).succeeded(), "swapped");
        Main.same("c", new String(value.get().postValue()), "the value");
    }

    static final QueueSerializer<String> TEXT = new QueueSerializer<>() {
        @Override
        public byte[] serialize(String item) {
            return item.getBytes();
        }

        @Override
        public String deserialize(byte[] bytes) {
            return new String(bytes);
        }
    };

    static QueueConsumer<String> into(Queue<String> taken) {
        return new QueueConsumer<>() {
            @Override
            public void consumeMessage(String message) {
                taken.add(message);
            }

            @Override
            public void stateChanged(CuratorFramework client, ConnectionState state) {}
        };
    }

    static void queue(Main.Env env, String path) throws Exception {
        Queue<String> taken = new ConcurrentLinkedQueue<>();
        try (DistributedQueue<String> in = QueueBuilder
                        .builder(env.one, null, TEXT, path).buildQueue();
                DistributedQueue<String> out = QueueBuilder
                        .builder(env.other, into(taken), TEXT, path).lockPath(path + "-locks")
                        .buildQueue()) {
            in.start();
            out.start();
            for (int item = 0; item < 20; item++) {
                in.put("item" + item);
            }
            Main.eventually(() -> taken.size() == 20, "twenty items");
            Main.check(taken.contains("item0") && taken.contains("item19"), "first and last item");
        }
    }

    static void priorityQueue(Main.Env env, String path) throws Exception {
        Queue<String> taken = new ConcurrentLinkedQueue<>();
        DistributedPriorityQueue<String> in =
                QueueBuilder.builder(env.one, null, TEXT, path).buildPriorityQueue(0);
        in.start();
        in.put("late", 20);
        in.put("soon", 1);
        in.put("first", -5);
        in.flushPuts(10, TimeUnit.SECONDS);
        try (DistributedPriorityQueue<String> out =
                QueueBuilder.builder(env.other, into(taken), TEXT, path).buildPriorityQueue(0)) {
            out.start();
            Main.eventually(() -> taken.size() == 3, "three items");
            Main.same("[first, soon, late]", taken.toString(), "their order");
        }
        in.close();
    }

    static void delayQueue(Main.Env env, String path) throws Exception {
        Queue<String> taken = new ConcurrentLinkedQueue<>();
        try (DistributedDelayQueue<String> queue =
                QueueBuilder.builder(env.one, into(taken), TEXT, path).buildDelayQueue()) {
            queue.start();
            long now = System.currentTimeMillis();
            queue.put("second", now + 500);
            queue.put("first", now + 100);
            Main.eventually(() -> taken.size() == 2, "two items");
            Main.check(System.currentTimeMillis() >= now + 500, "an item came before its time");
            Main.same("[first, second]", taken.toString(), "their order");
        }
    }

    static void idQueue(Main.Env env, String path) throws Exception {
        Queue<String> taken = new ConcurrentLinkedQueue<>();
        try (DistributedIdQueue<String> in =
                        QueueBuilder.builder(env.one, null, TEXT, path).buildIdQueue();
                DistributedIdQueue<String> out =
                        QueueBuilder.builder(env.other, into(taken), TEXT, path).buildIdQueue()) {
            in.start();
            in.put("kept", "k");
            in.put("removed", "r");
            in.flushPuts(10, TimeUnit.SECONDS);
            Main.same(1, in.remove("r"), "items with that id");
            out.start();
            Main.eventually(() -> taken.size() == 1, "one item");
            Main.same("[kept]", taken.toString(), "the other item");
        }
    }

    static void simpleQueue(Main.Env env, String path) throws Exception {
        SimpleDistributedQueue in = new SimpleDistributedQueue(env.one, path);
        SimpleDistributedQueue out = new SimpleDistributedQueue(env.other, path);
        in.offer("a".getBytes());
        in.offer("b".getBytes());
        Main.same("a", new String(out.peek()), "the head");
        Main.same("a", new String(out.take()), "the first");
        Main.same("b", new String(out.poll(5, TimeUnit.SECONDS)), "the second");
        Main.same(null, out.poll(), "nothing");
    }

    static void cache(Main.Env env, String path) throws Exception {
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        env.one.create().creatingParentsIfNeeded().forPath(path + "/old", "0".getBytes());
        try (CuratorCache cache = CuratorCache.build(env.one, path)) {
            cache.listenable().addListener(CuratorCacheListener.builder()
                    .forCreates(node -> events.add("+" + node.getPath()))
                    .forChanges((before, after) -> events.add("=" + new String(after.getData())))
                    .forDeletes(node -> events.add("-" + node.getPath()))
                    .forInitialized(() -> events.add("ready")).build());
            cache.start();
            while (!"ready".equals(events.poll(10, TimeUnit.SECONDS))) {
                Main.check(cache.size() > 0, "the cache fills");
            }
            Main.check(cache.get(path + "/old").isPresent(), "what was there before");
            env.other.create().creatingParentsIfNeeded().forPath(path + "/a/b", "1".getBytes());
            Main.same("+" + path + "/a", events.poll(10, TimeUnit.SECONDS), "the first event");
            Main.same("+" + path + "/a/b", events.poll(10, TimeUnit.SECONDS), "the second event");
            env.other.setData().forPath(path + "/a/b", "2".getBytes());
            Main.same("=2", events.poll(10, TimeUnit.SECONDS), "the third event");
            env.other.delete().deletingChildrenIfNeeded().forPath(path + "/a");
            Main.same("-" + path + "/a/b", events.poll(10, TimeUnit.SECONDS), "the fourth event");
            Main.same("-" + path + "/a", events.poll(10, TimeUnit.SECONDS), "the fifth event");
        }
    }

    static void nodeCache(Main.Env env, String path) throws Exception {
        try (CuratorCache cache =
                CuratorCache.build(env.one, path, CuratorCache.Options.SINGLE_NODE_CACHE)) {
            cache.start();
            env.other.create().forPath(path, "x".getBytes());
            env.other.create().forPath(path + "/below", "y".getBytes());
            Main.eventually(() -> cache.get(path).isPresent(), "the node");
            env.other.setData().forPath(path, "z".getBytes());
            Main.eventually(() -> "z".equals(new String(cache.get(path).get().getData())),
                    "its new data");
            Main.same(1, cache.size(), "nodes in the cache");
        }
    }

    @SuppressWarnings("deprecation")
    static void childrenCache(Main.Env env, String path) throws Exception {
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        env.one.create().creatingParentsIfNeeded().forPath(path + "/old", "0".getBytes());
        try (PathChildrenCache cache = new PathChildrenCache(env.one, path, true)) {
            cache.getListenable().addListener((client, event) ->
                    events.add(event.getType() + " " + event.getData().getPath()));
            cache.start(PathChildrenCache.StartMode.BUILD_INITIAL_CACHE);
            Main.same("0", new String(cache.getCurrentData(path + "/old").getData()), "old data");
            env.other.create().forPath(path + "/new", "1".getBytes());
            Main.same("CHILD_ADDED " + path + "/new", events.poll(10, TimeUnit.SECONDS),
                    "an event");
            env.other.setData().forPath(path + "/new", "2".getBytes());
            Main.same("CHILD_UPDATED " + path + "/new", events.poll(10, TimeUnit.SECONDS),
                    "an event");
            env.other.delete().forPath(path + "/old");
            Main.same("CHILD_REMOVED " + path + "/old", events.poll(10, TimeUnit.SECONDS),
                    "an event");
        }
    }

    @SuppressWarnings("deprecation")
    static void treeCache(Main.Env env, String path) throws Exception {
        env.one.create().creatingParentsIfNeeded().forPath(path + "/a/b", "0".getBytes());
        try (TreeCache cache = new TreeCache(env.one, path)) {
            cache.start();
            Main.eventually(() -> cache.getCurrentData(path + "/a/b") != null, "what was there");
            env.other.create().forPath(path + "/a/b/c", "1".getBytes());
            Main.eventually(() -> cache.getCurrentData(path + "/a/b/c") != null, "a new znode");
            env.other.delete().deletingChildrenIfNeeded().forPath(path + "/a/b");
            Main.eventually(() -> cache.getCurrentChildren(path + "/a").isEmpty(), "none below");
        }
    }
}
