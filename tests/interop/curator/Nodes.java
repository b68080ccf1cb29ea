// The framework itself: transactions, watches, access lists, kinds of nodes, background calls.

import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.framework.schema.Schema;
import org.apache.curator.framework.schema.SchemaSet;
import org.apache.curator.retry.RetryOneTime;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;

final class Nodes {
    static void addTo(Map<String, Main.Recipe> recipes) {
        recipes.put("transaction", Nodes::transaction);
        recipes.put("one-shot watches", Nodes::oneShot);
        recipes.put("persistent recursive watch", Nodes::persistentWatch);
        recipes.put("watch removal", Nodes::watchRemoval);
        recipes.put("access lists", Nodes::accessLists);
        recipes.put("kinds of nodes", Nodes::kinds);
        recipes.put("protected create", Nodes::protectedCreate);
        recipes.put("background calls", Nodes::background);
        recipes.put("large and empty data", Nodes::sizes);
        recipes.put("versions and deletion", Nodes::versions);
        recipes.put("schema", Nodes::schema);
    }

    static void transaction(Main.Env env, String path) throws Exception {
        CuratorFramework client = env.one;
        List<CuratorTransactionResult> results = client.transaction().forOperations(
                client.transactionOp().create().forPath(path, "a".getBytes()),
                client.transactionOp().create().withMode(CreateMode.PERSISTENT_SEQUENTIAL)
                        .forPath(path + "/s-", "b".getBytes()),
                client.transactionOp().setData().forPath(path, "c".getBytes()),
                client.transactionOp().check().withVersion(1).forPath(path),
                client.transactionOp().delete().forPath(path + "/s-0000000000"));
        Main.same(5, results.size(), "results");
        Main.same(path + "/s-0000000000", results.get(1).getResultPath(), "the sequential path");
        Main.same(1, results.get(2).getResultStat().getVersion(), "the version");
        try {
            client.transaction().forOperations(
                    client.transactionOp().create().forPath(path + "/x"),
                    client.transactionOp().check().withVersion(9).forPath(path));
            throw new AssertionError("a failing transaction succeeded");
        } catch (KeeperException.BadVersionException expected) {
            Main.same(null, client.checkExists().forPath(path + "/x"), "its first half");
        }
    }

    static void oneShot(Main.Env env, String path) throws Exception {
        BlockingQueue<WatchedEvent> events = new LinkedBlockingQueue<>();
        env.one.checkExists().usingWatcher((org.apache.zookeeper.Watcher) events::add).forPath(path);
        env.other.create().forPath(path);
        expect(events, "NodeCreated", path);
        env.one.getData().usingWatcher((org.apache.zookeeper.Watcher) events::add).forPath(path);
        env.other.setData().forPath(path, "1".getBytes());
        env.other.setData().forPath(path, "2".getBytes());
        expect(events, "NodeDataChanged", path);
        env.one.getChildren().usingWatcher((org.apache.zookeeper.Watcher) events::add).forPath(path);
        env.other.create().forPath(path + "/child");
        expect(events, "NodeChildrenChanged", path);
        env.one.getData().usingWatcher((org.apache.zookeeper.Watcher) events::add)
                .forPath(path + "/child");
        env.other.delete().forPath(path + "/child");
        expect(events, "NodeDeleted", path + "/child");
        Main.check(events.isEmpty(), "more events than there were watches");
    }

    static void persistentWatch(Main.Env env, String path) throws Exception {
        BlockingQueue<WatchedEvent> events = new LinkedBlockingQueue<>();
        try (PersistentWatcher watcher = new PersistentWatcher(env.one, path, true)) {
            watcher.getListenable().addListener(events::add);
            CountDownLatch ready = new CountDownLatch(1);
            watcher.getResetListenable().addListener(ready::countDown);
            watcher.start();
            Main.check(ready.await(10, TimeUnit.SECONDS), "the watch was not set");
            env.other.create().forPath(path);
            env.other.create().forPath(path + "/a");
            env.other.setData().forPath(path + "/a", "1".getBytes());
            env.other.setData().forPath(path + "/a", "2".getBytes());
            env.other.delete().forPath(path + "/a");
            expect(events, "NodeCreated", path);
            expect(events, "NodeCreated", path + "/a");
            expect(events, "NodeDataChanged", path + "/a");
            expect(events, "NodeDataChanged", path + "/a");
            expect(events, "NodeDeleted", path + "/a");
        }
        env.one.watchers().add().withMode(AddWatchMode.PERSISTENT)
                .usingWatcher((org.apache.zookeeper.Watcher) events::add).forPath(path);
        env.other.create().forPath(path + "/b");
        env.other.create().forPath(path + "/c");
        expect(events, "NodeChildrenChanged", path);
        expect(events, "NodeChildrenChanged", path);
    }

    static void watchRemoval(Main.Env env, String path) throws Exception {
        env.one.create().forPath(path);
        BlockingQueue<WatchedEvent> events = new LinkedBlockingQueue<>();
        org.apache.zookeeper.Watcher watcher = events::add;
        env.one.getData().usingWatcher(watcher).forPath(path);
        env.one.watchers().remove(watcher).forPath(path);
        expect(events, "DataWatchRemoved", path);
        env.other.setData().forPath(path, "1".getBytes());
        Main.same(null, events.poll(200, TimeUnit.MILLISECONDS), "an event of a removed watch");
    }

    static void accessLists(Main.Env env, String path) throws Exception {
        try (CuratorFramework owner = CuratorFrameworkFactory.builder()
                .connectString(env.servers).retryPolicy(new RetryOneTime(500))
                .authorization("digest", "alice:secret".getBytes()).build()) {
            owner.start();
            owner.create().withACL(ZooDefs.Ids.CREATOR_ALL_ACL).forPath(path, "mine".getBytes());
            try {
                env.one.getData().forPath(path);
                throw new AssertionError("read without permission");
            } catch (KeeperException.NoAuthException expected) {
                Main.same("mine", new String(owner.getData().forPath(path)), "the owner's view");
            }
            List<ACL> list = owner.getACL().forPath(path);
            Main.same("alice:aYXlLOpEooaV1cRAvUL1fp9Qt7E=", list.get(0).getId().getId(), "the id");
            owner.setACL().withACL(Collections.singletonList(
                    new ACL(ZooDefs.Perms.READ, new Id("world", "anyone")))).forPath(path);
            Main.same("mine", new String(env.one.getData().forPath(path)), "everyone's view");
        }
    }

    static void kinds(Main.Env env, String path) throws Exception {
        env.one.create().withMode(CreateMode.CONTAINER).forPath(path);
        Main.same(path + "/0000000000", env.one.create()
                .withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath(path + "/"), "a sequential");
        String ephemeral = env.one.create().withMode(CreateMode.EPHEMERAL_SEQUENTIAL)
                .forPath(path + "/e");
        Stat stat = env.other.checkExists().forPath(ephemeral);
        Main.same(env.one.getZookeeperClient().getZooKeeper().getSessionId(),
                stat.getEphemeralOwner(), "the owner");
        try {
            env.one.create().forPath(ephemeral + "/x");
            throw new AssertionError("an ephemeral node got a child");
        } catch (KeeperException.NoChildrenForEphemeralsException expected) {
            env.one.delete().deletingChildrenIfNeeded().forPath(path);
        }
        env.one.create().withTtl(100).withMode(CreateMode.PERSISTENT_WITH_TTL).forPath(path);
        Main.eventually(() -> env.other.checkExists().forPath(path) == null, "the end of its time");
        env.one.create().withMode(CreateMode.CONTAINER).forPath(path);
        env.one.create().forPath(path + "/last");
        env.one.delete().forPath(path + "/last");
        Main.eventually(() -> env.other.checkExists().forPath(path) == null,
                "the end of an empty container");
    }

    static void protectedCreate(Main.Env env, String path) throws Exception {
        String made = env.one.create().creatingParentsIfNeeded().withProtection()
                .withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath(path + "/lock-");
        Main.check(made.contains("_c_") && made.endsWith("lock-0000000000"), made);
        env.one.create().orSetData().forPath(path, "again".getBytes());
        Main.same("again", new String(env.other.getData().forPath(path)), "created or set");
    }

    static void background(Main.Env env, String path) throws Exception {
        env.one.create().forPath(path);
        CountDownLatch done = new CountDownLatch(200);
        for (int node = 0; node < 100; node++) {
            String child = path + "/" + node;
            env.one.create().inBackground((client, event) -> {
                Main.same(0, event.getResultCode(), "the result of a create");
                done.countDown();
            }).forPath(child);
            env.one.getData().inBackground((client, event) -> {
                Main.same(0, event.getResultCode(), "the result of a read behind it");
                done.countDown();
            }).forPath(child);
        }
        Main.check(done.await(20, TimeUnit.SECONDS), "some calls were not answered");
        env.other.sync().forPath(path);
        Main.same(100, env.other.getChildren().forPath(path).size(), "children");
    }

    static void sizes(Main.Env env, String path) throws Exception {
        byte[] large = new byte[1_000_000];
        large[999_999] = 7;
        env.one.create().forPath(path, large);
        Main.check(java.util.Arrays.equals(large, env.other.getData().forPath(path)), "large data");
        env.one.setData().forPath(path, new byte[0]);
        Main.same(0, env.other.getData().forPath(path).length, "no data");
        env.one.setData().compressed().forPath(path, new byte[100_000]);
        Main.same(100_000, env.other.getData().decompressed().forPath(path).length, "compressed");
    }

    static void versions(Main.Env env, String path) throws Exception {
        env.one.create().creatingParentContainersIfNeeded().forPath(path + "/a/b/c");
        env.one.setData().withVersion(0).forPath(path + "/a/b/c", "1".getBytes());
        try {
            env.other.setData().withVersion(0).forPath(path + "/a/b/c", "2".getBytes());
            throw new AssertionError("an old version was good enough");
        } catch (KeeperException.BadVersionException expected) {
            env.other.delete().withVersion(1).forPath(path + "/a/b/c");
        }
        env.other.delete().guaranteed().deletingChildrenIfNeeded().forPath(path);
        env.other.delete().quietly().forPath(path);
        Main.same(null, env.one.checkExists().forPath(path), "the deleted tree");
    }

    static void schema(Main.Env env, String path) throws Exception {
        Schema schema = Schema.builder(path)
                .dataValidator((name, at, data, acl) -> data.length > 0).build();
        try (CuratorFramework client = CuratorFrameworkFactory.builder()
                .connectString(env.servers).retryPolicy(new RetryOneTime(500))
                .namespace("named").schemaSet(new SchemaSet(List.of(schema), true)).build()) {
            client.start();
            client.create().forPath(path, "x".getBytes());
            Main.check(env.one.checkExists().forPath("/named" + path) != null, "the namespace");
        }
    }

    private static void expect(BlockingQueue<WatchedEvent> events, String type, String path)
            throws Exception {
        WatchedEvent event;
        do {
            event = events.poll(10, TimeUnit.SECONDS);
            Main.check(event != null, "no event: " + type + " " + path);
        } while (event.getType() == org.apache.zookeeper.Watcher.Event.EventType.None);
        Main.same(type + " " + path, event.getType() + " " + event.getPath(), "the event");
    }
}
