// Every recipe of Curator against the server whose connect string is the argument.
// Prints a line per recipe and 'curator: N passed, N failed'; exits non-zero when one failed.

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.RetryOneTime;

public final class Main {
    /** A recipe's test; it works below a path of its own. */
    interface Recipe {
        void run(Env env, String path) throws Exception;
    }

    /** What recipes are given: clients, threads, and checks that say what they expected. */
    static final class Env {
        final String servers;
        final CuratorFramework one;
        final CuratorFramework other;
        final ExecutorService threads = Executors.newCachedThreadPool();

        Env(String servers) throws Exception {
            this.servers = servers;
            one = client(10_000);
            other = client(10_000);
        }

        CuratorFramework client(int timeoutMs) throws Exception {
            CuratorFramework client = CuratorFrameworkFactory.builder()
                    .connectString(servers).sessionTimeoutMs(timeoutMs).connectionTimeoutMs(10_000)
                    .retryPolicy(new RetryOneTime(500)).build();
            client.start();
            check(client.blockUntilConnected(20, TimeUnit.SECONDS), "no connection");
            return client;
        }

        <T> Future<T> async(Callable<T> task) {
            return threads.submit(task);
        }
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void same(Object expected, Object found, String what) {
        check(expected == null ? found == null : expected.equals(found),
                what + ": expected " + expected + ", found " + found);
    }

    /** Waits until the condition holds, at most ten seconds. */
    static void eventually(Callable<Boolean> condition, String what) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (!condition.call()) {
            check(System.nanoTime() < deadline, "did not come about: " + what);
            Thread.sleep(10);
        }
    }

    static <T> T get(Future<T> future) throws Exception {
        return future.get(20, TimeUnit.SECONDS);
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, Recipe> recipes = new LinkedHashMap<>();
        Locks.addTo(recipes);
        Elections.addTo(recipes);
        Shared.addTo(recipes);
        Nodes.addTo(recipes);
        Env env = new Env(arguments[0]);
        int passed = 0;
        int failed = 0;
        for (Map.Entry<String, Recipe> entry : recipes.entrySet()) {
            long start = System.nanoTime();
            try {
                entry.getValue().run(env, "/" + entry.getKey().replace(' ', '-'));
                passed++;
                System.out.printf("ok %s (%d ms)%n", entry.getKey(),
                        (System.nanoTime() - start) / 1_000_000);
            } catch (Throwable failure) {
                failed++;
                System.out.println("FAILED " + entry.getKey() + ": " + failure);
                failure.printStackTrace(System.out);
            }
        }
        env.one.close();
        env.other.close();
        env.threads.shutdownNow();
        System.out.println("curator: " + passed + " passed, " + failed + " failed");
        System.exit(failed == 0 ? 0 : 1);
    }
}
