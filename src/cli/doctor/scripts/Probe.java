public class Probe {
    public static void main(String[] arguments) throws Exception {
        var connection = (java.net.HttpURLConnection) new java.net.URL(arguments[0]).openConnection();
        System.out.println("status=" + connection.getResponseCode());
    }
}
